"""Edits: differences of weights with the card that says where they come from."""
