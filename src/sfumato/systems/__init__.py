"""One system of the literature, one file."""
