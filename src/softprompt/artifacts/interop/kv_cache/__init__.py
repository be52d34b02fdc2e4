"""Tuned prompts compiled for engines that keep keys and values: vLLM, llama.cpp.

A compiled prompt is what a KV cache holds after it has read the prompt, whatever the prompt was made of: a
prefix placed before the input, or soft tokens placed there. Compiling is exact or refused. Soft tokens placed
after the input are kept as they are, for engines that take embeddings.
"""
