"""A transformers model of the user's own with a prompt table attached."""

from .attach import attach
from .collator import PromptCollator
from .prompt_model import SoftPromptModel

__all__ = ["PromptCollator", "SoftPromptModel", "attach"]
