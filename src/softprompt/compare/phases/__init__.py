"""These functions run the trials of a comparison; `softprompt.compare.records.phase` is their table."""
