"""The phases of a comparison: train, score, measure."""
