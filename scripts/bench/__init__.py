"""The parts of scripts/benchmark.py: one module for each kind of measurement."""
