"""The trials of a comparison are run by these functions; `softprompt.compare.phase` is their table."""
