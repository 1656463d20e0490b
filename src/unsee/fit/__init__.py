"""The one training loop, its optimizers, its memory and the state from which it resumes."""
