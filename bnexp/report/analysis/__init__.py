"""What runs have in common, how they differ, and the verdict."""
