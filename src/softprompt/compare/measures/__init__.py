"""Measurements of trained prompts: control, cost and latency."""
