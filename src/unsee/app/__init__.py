"""The web interface: a page over the same runs as the command line, with nothing of its own that is computed."""
