"""The training loop, its step, its sampler, its losses and its checkpoints."""
