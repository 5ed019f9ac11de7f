"""Runs and sweeps from Python: what ``bnexp.open_run`` and ``bnexp.open_sweep`` return."""
