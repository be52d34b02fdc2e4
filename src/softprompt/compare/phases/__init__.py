"""The trials of each phase are run by these functions; `softprompt.compare.records.phase` is the table."""
