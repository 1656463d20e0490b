"""Pipelines: load, name and hash them; which modules denoise; which weights an edit may change."""
