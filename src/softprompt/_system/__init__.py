"""Files, memory, threads and output: nothing here knows of models."""
