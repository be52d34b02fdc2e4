"""Tuned prompts on disk: saved, loaded, combined, inspected, imported and exported."""
