"""Files of other tools: written, read, and pushed to the hub."""
