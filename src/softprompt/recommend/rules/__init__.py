"""Rules on which method suits which rows, each with its evidence."""
