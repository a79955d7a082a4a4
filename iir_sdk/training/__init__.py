"""Training and evaluation; never imported by inference."""
