"""This package handles files, memory, threads and output; it knows no models."""
