"""Supports: encoded examples of a label, kept, joined and merged."""
