"""Constants of the inputs, which are computed once and kept: in memory, or on disk where runs share them.

`softprompt.cache.planning` decides which of them are kept, and where.
"""

from .base import Cache
from .features import InputFeatures
from .inputs import InputCache
from .kv import Form, KeyValues, common_beginning

__all__ = ["Cache", "Form", "InputCache", "InputFeatures", "KeyValues", "common_beginning"]
