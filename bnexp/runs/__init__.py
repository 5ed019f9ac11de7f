"""A run on disk: its folder, identity, environment, and its loggers."""
