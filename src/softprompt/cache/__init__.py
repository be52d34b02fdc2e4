"""The inputs' keys and values, computed once: in memory (`ram`) or on disk, shared by runs (`disk`).

What is kept and where is `softprompt.plan`'s to decide; nothing here knows a method or a recipe.
"""

from .rows import ContextCache, Form

__all__ = ["ContextCache", "Form"]
