"""The web interface: a page over the same runs as the command line. It computes nothing itself."""
