"""Who runs the tasks of a step: processes of this machine, a Slurm job array, a Ray cluster."""
