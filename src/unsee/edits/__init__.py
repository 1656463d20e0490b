"""`Edit`: differences of weights with a card that says how they were made; sums of edits."""
