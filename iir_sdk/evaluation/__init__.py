"""Scoring: masks, several labels, presence, and reports of them."""
