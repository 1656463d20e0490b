"""Measure what an edit did: prompt sets, pictures on equal seeds, detectors, statistics."""
