"""Measure what an edit did: ask questions of pictures, drawn before and after on equal seeds."""
