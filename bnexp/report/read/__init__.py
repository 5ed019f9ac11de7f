"""Reads finished run folders for the report."""
