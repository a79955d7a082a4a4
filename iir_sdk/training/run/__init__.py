"""A training run: its steps, losses, processes and folder."""
