"""Trained prefixes and soft prompts on stock vLLM: see `connector`."""
