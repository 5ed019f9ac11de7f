"""Groups the runs, tests the differences and decides the verdict."""
