"""One verb of the user, one file."""
