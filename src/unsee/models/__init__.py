"""Pipelines: loading, naming, hashing, which modules denoise, which weights they have."""
