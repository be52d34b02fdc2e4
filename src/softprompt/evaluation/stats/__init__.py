"""Statistics of scores. They know numbers alone."""
