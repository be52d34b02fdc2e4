"""This package computes a model's answers to rows under a prompt, and scores them with metrics."""
