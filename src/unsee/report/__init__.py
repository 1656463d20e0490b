"""Show what was measured: a grid of pictures, and a page that needs nothing beside itself."""
