"""One architecture, one file: a Config and an nn.Module."""
