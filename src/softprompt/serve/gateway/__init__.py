"""The gateway serves the same API with vLLM as the engine. It has no state, so any number of them can run.

Clients cannot choose what vLLM is asked for: a prompt's content hash, which is also the salt of vLLM's cache,
comes only from the folder.
"""
