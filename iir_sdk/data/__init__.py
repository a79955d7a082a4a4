"""Pictures with masks: folders of one's own, the field's benchmarks, episodes drawn from them."""
