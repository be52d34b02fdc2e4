"""The measures of `benchmarks.distill`, one a module."""
