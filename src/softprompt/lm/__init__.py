"""The only code that imports model code. `load(name)` gives a `LanguageModel`."""

from .._system.gc import rare_collection
from .._system.quiet import quiet

with rare_collection(), quiet():
    import transformers.modeling_utils  # noqa: F401  (all of this package needs it)
