"""Jobs on SLURM or on this machine."""
