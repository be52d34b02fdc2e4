"""Thousands of tuned prompts are served from one copy of the base model."""
