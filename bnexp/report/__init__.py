"""From many runs to one answer. Imports no torch."""
