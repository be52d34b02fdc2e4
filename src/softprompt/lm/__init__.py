"""The only code that imports model code. `load(name)` gives a `LanguageModel`."""

from ..collector import rare_collection

with rare_collection():
    import transformers.modeling_utils  # noqa: F401  (all of this package needs it)
