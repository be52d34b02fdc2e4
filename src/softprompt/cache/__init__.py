"""What is constant of inputs, computed once: in memory (`ram`) or on disk, shared by runs (`disk`).

What is kept and where is `softprompt.cache.plan`'s to decide; nothing here knows a method or a recipe.
"""

from .base import Cache
from .features import InputFeatures
from .inputs import InputCache
from .kv import Form, KeyValues, common_beginning

__all__ = ["Cache", "Form", "InputCache", "InputFeatures", "KeyValues", "common_beginning"]
