"""``iir-sdk demo``: few-shot jobs on pictures that travel with the package."""
