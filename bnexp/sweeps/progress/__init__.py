"""How a sweep goes, read from its folder: its jobs, the time left, the live view."""
