"""What happens around many runs: jobs, launchers, workers."""
