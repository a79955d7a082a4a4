"""Pictures with masks, and the episodes drawn from them."""
