"""Files from strangers are checked before they are read. Files are written whole or not at all."""
