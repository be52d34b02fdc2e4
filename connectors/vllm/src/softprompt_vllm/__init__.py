"""Trained prefixes and soft prompts run on stock vLLM; see `connector`."""
