"""Before training: what is wrong with a user's own parts, as far as a few steps show it."""
