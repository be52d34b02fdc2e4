"""Measurements behind the numbers in docs/: commands that anyone can run on their own copy of the data."""
