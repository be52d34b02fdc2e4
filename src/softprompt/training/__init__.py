"""Everything from a recipe to a trained prompt is here: the loop, steps, losses and checkpoints."""
