"""A folder's pictures with their labels, strokes and masks, and the thread that predicts them; no HTTP."""
