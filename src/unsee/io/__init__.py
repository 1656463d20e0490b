"""Files from strangers, checked; and files written whole or not at all."""
