"""What the trials of a comparison do. `softprompt.compare.phase` is the table of phases."""
