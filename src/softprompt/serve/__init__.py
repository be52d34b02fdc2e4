"""Serve thousands of tuned prompts from one model: the engine, and an OpenAI-compatible API over it."""
