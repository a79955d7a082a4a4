"""A backend for Label Studio: what its annotators drew teaches, and its other tasks get masks."""
