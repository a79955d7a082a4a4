"""What runs a network: one base, PyTorch, and exported graphs."""
