"""The phases of a comparison are run here: their order, the jobs, the processes and the time."""
