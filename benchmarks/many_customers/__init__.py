"""A thousand customers, each with a few rows and a prompt of its own (`python -m benchmarks.customers`)."""
