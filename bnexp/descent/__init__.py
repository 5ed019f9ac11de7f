"""Descent: the optimisers on functions that one can see, and on linear regression."""
