"""Features of augmented views, kept for many episodes."""
