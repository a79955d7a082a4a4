"""The door for pictures and masks, in and out."""
