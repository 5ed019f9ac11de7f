"""Where the units of a sweep are trained: processes on this machine, jobs of SLURM, tasks of Ray."""
