"""A KV connector that fills the first k tokens of a request with a compiled prompt.

A request carries k placeholder tokens ahead of its own, and

    kv_transfer_params = {"prefix_id": SHA256, "prefix_length": k}
    cache_salt = SHA256

so that vLLM's own prefix cache keeps texts under different prompts apart, although the placeholders are the
same. Nothing here raises while the engine runs, since that would end it: a prefix that is missing, damaged or
wrongly requested makes its own request fail (its blocks are reported as not loaded).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
)
from vllm.logger import init_logger
from vllm.model_executor.models.utils import extract_layer_index

from .prefixes import IDENTIFIER, BrokenPrefix, Prefixes

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.forward_context import ForwardContext
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.request import Request

logger = init_logger(f"vllm.{__name__}")


@dataclass(frozen=True)
class Wanted:
    """The prefix that a request names; `wrong` says why that cannot be used."""

    prefix: str = ""
    length: int = 0
    wrong: str = ""


@dataclass
class Load:
    """Tokens [start, start + count) of a request are loaded into `blocks` of the cache."""

    request: str
    wanted: Wanted
    start: int
    count: int
    blocks: list[int]

    def slots(self, block_size: int) -> torch.Tensor:
        """Return their places in the cache."""
        at = torch.arange(self.start, self.start + self.count)
        return torch.tensor(self.blocks)[at // block_size] * block_size + at % block_size

    def block_ids(self, block_size: int) -> list[int]:
        """Return the blocks that contain any of them."""
        last = self.start + self.count - 1
        return self.blocks[self.start // block_size : last // block_size + 1]


@dataclass
class Loads(KVConnectorMetadata):
    """Tells the workers what to load before the next step."""

    requests: list[Load] = field(default_factory=list)


class PrefixConnector(KVConnectorBase_V1):
    """Loads compiled prompts. `kv_connector_extra_config` has `folder`, and `max_bytes` in memory."""

    def __init__(
        self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig | None = None
    ) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        settings = self._kv_transfer_config
        if settings.kv_load_failure_policy != "fail":
            raise ValueError("kv_load_failure_policy must be 'fail': placeholders cannot be computed as text")
        groups = getattr(kv_cache_config, "kv_cache_groups", None) or [None]
        if len(groups) > 1:
            raise ValueError("models whose layers keep caches of several kinds are not served")
        self.block_size: int = vllm_config.cache_config.block_size
        extra = settings.get_from_extra_config
        dtype = vllm_config.model_config.dtype  # a cache of fewer bits rounds again by default
        self.prefixes = Prefixes(extra("folder", ""), int(extra("max_bytes", 1 << 30)), dtype)
        layers = vllm_config.model_config.get_total_num_hidden_layers()
        if len(self.prefixes.layers) != layers:
            raise ValueError(
                f"{self.prefixes.folder} is for a model of {len(self.prefixes.layers)} layers, not {layers}"
            )
        self._waiting: list[Load] = []  # in the scheduler
        self._failed: set[int] = set()  # in a worker: blocks that were not filled

    # In the scheduler

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int, bool]:
        """Return how many tokens of the prefix vLLM's own cache lacks."""
        wanted = _wanted(request)
        if wanted is None:
            return 0, False
        if wanted.wrong:  # a load can fail, and with it the request
            return max(request.num_tokens - 1 - num_computed_tokens, 0), False
        return max(wanted.length - num_computed_tokens, 0), False

    def update_state_after_alloc(
        self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int
    ) -> None:
        """Note the blocks that they will get."""
        wanted = _wanted(request)
        if wanted is None or num_external_tokens == 0:
            return
        (ids,) = blocks.get_block_ids()
        end = request.num_tokens - 1 if wanted.wrong else wanted.length
        start = end - num_external_tokens
        self._waiting.append(Load(request.request_id, wanted, start, num_external_tokens, list(ids)))

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> KVConnectorMetadata:
        """Return what the workers load before this step."""
        waiting, self._waiting = self._waiting, []
        return Loads(waiting)

    # In a worker

    def start_load_kv(self, forward_context: ForwardContext, **kwargs: Any) -> None:
        """Fill the blocks of new requests in all layers."""
        metadata = self._get_connector_metadata()
        if not isinstance(metadata, Loads):
            return
        for load in metadata.requests:
            try:
                self._fill(load, forward_context)
            except Exception as error:  # no error may end the engine
                why = str(error) if isinstance(error, BrokenPrefix) else repr(error)
                logger.error("prefix %s of request %s: %s", load.wanted.prefix[:16], load.request, why)
                self._failed.update(load.block_ids(self.block_size))

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Return the blocks of requests that must fail."""
        failed, self._failed = self._failed, set()
        return failed

    def _fill(self, load: Load, forward_context: ForwardContext) -> None:
        if load.wanted.wrong:
            raise BrokenPrefix(load.wanted.wrong)
        layers = self.prefixes.get(load.wanted.prefix)
        length = layers[0][0].shape[0]
        if length != load.wanted.length:
            raise BrokenPrefix(f"it has {length} vectors, and {load.wanted.length} were requested")
        slots = load.slots(self.block_size)
        rows = slice(load.start, load.start + load.count)
        for name, layer in forward_context.no_compile_layers.items():
            cache = getattr(layer, "kv_cache", None)
            if cache is None or not hasattr(layer, "impl"):
                continue
            pair = layers[extract_layer_index(name)]
            key, value = (_own_heads(part[rows], layer.num_kv_heads) for part in pair)
            key, value = (part.to(cache.device).contiguous() for part in (key, value))
            layer.impl.do_kv_cache_update(layer, key, value, cache, slots.to(cache.device))

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Do nothing: everything was loaded before the step."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        """Do nothing: no caches are saved."""

    def wait_for_save(self) -> None:
        """Do nothing: no caches are saved."""


def _wanted(request: Request) -> Wanted | None:
    """Return the prefix that a request names, or None."""
    params = request.kv_transfer_params
    if not params or not isinstance(params, dict):
        return None
    prefix, length = params.get("prefix_id"), params.get("prefix_length")
    if not isinstance(prefix, str) or not IDENTIFIER.fullmatch(prefix):
        return Wanted(wrong="prefix_id is not a sha256")
    if not isinstance(length, int) or not 0 < length < request.num_prompt_tokens:
        return Wanted(prefix, wrong="prefix_length leaves no token of the request's own")
    if request.cache_salt != prefix:
        return Wanted(prefix, wrong="cache_salt is not the prefix_id")
    return Wanted(prefix, length)


def _own_heads(tensor: torch.Tensor, local: int) -> torch.Tensor:
    """Select this worker's heads of [n, kv_heads, head_dim] under tensor parallelism."""
    heads, size = tensor.shape[1], get_tensor_model_parallel_world_size()
    if local == heads:
        return tensor
    rank = get_tensor_model_parallel_rank()
    first = rank * local if heads >= size else rank // (size // heads)  # fewer heads than workers: copies
    return tensor[:, first : first + local]
