"""Readers of the field's benchmarks in their official layouts."""
