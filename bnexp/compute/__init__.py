"""Where a step is computed: the device, its memory; the processes of a run; torch's overhead."""
