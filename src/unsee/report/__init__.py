"""Show what was measured: grids of pictures, and an HTML page that opens from disk."""
