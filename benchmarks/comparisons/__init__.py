"""The same methods are compared on nine data sets; `docs/nine-comparisons.md` discusses the results."""
