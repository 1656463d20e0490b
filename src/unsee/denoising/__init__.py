"""Denoiser calls of a pipeline: record, replay, capture activations, replace predictions."""
