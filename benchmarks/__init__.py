"""Commands that measure the numbers in docs/, and that anyone can run on their own copy of the data."""
