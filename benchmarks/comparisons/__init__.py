"""The same methods are compared on nine data sets; `docs/findings.md` discusses the results."""
