"""A thousand customers with few rows have a prompt of their own each (`python -m benchmarks.customers`)."""
