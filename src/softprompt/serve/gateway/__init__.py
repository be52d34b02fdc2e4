"""vLLM as the engine behind the same API: stateless, so any number of gateways may stand ahead of it.

translate.py  a request as stock vLLM takes it      registry.py  compiled prompts by name
client.py     vLLM over HTTP                        engine.py    the engine's interface over it
sse.py        the events of a stream                answer.py    one answer as it streams
faults.py     what went wrong with vLLM, in words   pulse.py     whether it answers
gateway.py    all of it as an application

A client never names what vLLM is told: the prompt's content hash, which is the salt of its cache too, comes
from the folder alone.
"""

from .engine import VllmEngine
from .registry import CompiledRegistry

__all__ = ["CompiledRegistry", "VllmEngine"]
