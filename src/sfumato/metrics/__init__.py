"""One metric, one file; each states its unit, range, direction and source."""
