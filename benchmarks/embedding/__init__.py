"""The rows that benchmarks.embeddings measures on."""
