"""Tuned prompts are compiled for engines that keep keys and values, such as vLLM and llama.cpp.

A compiled prompt is the content of a KV cache that has read the prompt: a prefix before the input, or soft
tokens there. Compiling is exact or refused. Soft tokens after the input are stored as they are, for engines
that accept embeddings. Importing this package loads nothing; the gateway imports `folder` alone.
"""
