"""Several runs that differ only in their seed, trained as one network."""
