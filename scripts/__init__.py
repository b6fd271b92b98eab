"""Command-line programs over the library."""
