"""The command line: help, launching Hydra, errors in one line, exit codes."""
