"""Metrics, and what a model with an injection answers to rows."""
