"""A text that every request repeats becomes a few vectors, and what was lost is measured: docs/distill.md."""
