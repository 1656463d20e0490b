"""What other tools read, and what is read of theirs."""
