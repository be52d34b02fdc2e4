"""The only code that imports model code. `load(name)` gives a `LanguageModel`."""
