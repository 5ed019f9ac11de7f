"""Run folders read back for the report."""
