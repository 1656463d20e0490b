"""A miniature that flows: a joint-attention transformer, flow matching, a language model as its text encoder."""
