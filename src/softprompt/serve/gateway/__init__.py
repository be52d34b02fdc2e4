"""vLLM as the engine behind the same API: stateless, so any number of gateways may stand ahead of it.

A client never names what vLLM is told: the prompt's content hash, which is the salt of its cache too, comes
from the folder alone.
"""

from .engine import VllmEngine
from .registry import CompiledRegistry

__all__ = ["CompiledRegistry", "VllmEngine"]
