"""Benchmark of the super-resolution bundles."""
