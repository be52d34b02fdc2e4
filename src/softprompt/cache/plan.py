"""A plan says which constants of the inputs are kept, and where, and how a step is computed.

Plans are made in `planning`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Mode = Literal["cached-ram", "cached-disk", "recompute", "full"]
Where = Literal["ram", "disk", "nowhere"]


@dataclass(frozen=True, slots=True)
class Keeping:
    """Describes where a constant of the inputs is kept, and why. Every distinct input is kept once."""

    content: str
    where: Where
    reason: str
    tokens: int  # positions
    bytes: int
    disk_bytes: int = 0  # that all caches together may take on disk; 0 where the disk was not considered
    folder: str | None = None  # on disk
    stored: bool = False  # earlier runs have written all of it

    def __str__(self) -> str:
        if self.where == "nowhere":
            return f"{self.content}: computed each step ({self.reason})"
        at = "in memory" if self.where == "ram" else f"on disk, in {self.folder}"
        when = "already" if self.stored else "once"
        return f"{self.content}: cached {when} {at}, {self.tokens:,} tokens, {size(self.bytes)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Describes how a step is computed, its cost, and why. `softprompt check` prints `str(plan)`."""

    mode: Mode
    reason: str
    step_tokens: int  # positions that go through the model with gradient, a step of mean length
    prefill_tokens: int  # positions computed once (where cached) or every step (recompute)
    cache_bytes: int  # of the inputs' keys and values, if all were kept
    budget_bytes: int  # of memory, for all that is kept
    soft_tokens: int = 0  # positions of the prompt in each row of a step
    disk_bytes: int = 0  # that all caches together may take on disk; 0 where the disk was not considered
    folder: str | None = None  # of the cache on disk
    stored: bool = False  # earlier runs have written all of it
    features: Keeping | None = None  # of the features that a generated prompt reads, if they are constants
    backward_bytes: int = 0  # that a step over the largest batch keeps for its backward pass; 0: not measured
    checkpointing: bool = False  # they are not kept but computed again
    checkpointing_reason: str = ""

    @property
    def is_cached(self) -> bool:
        """Return True where inputs are computed once."""
        return self.mode in ("cached-ram", "cached-disk")

    @property
    def ram_bytes(self) -> int:
        """Return the memory that all kept constants take."""
        features = self.features.bytes if self.features and self.features.where == "ram" else 0
        return features + (self.cache_bytes if self.mode == "cached-ram" else 0)

    def to_json(self) -> dict[str, Any]:
        """Return all fields, as `softprompt check --json` prints them."""
        fields = asdict(self)
        if self.features is not None:
            fields["features"] = {"what": self.features.content, **fields["features"]}
            del fields["features"]["content"]
        return fields

    def __str__(self) -> str:
        lines = [f"plan: {self.mode}", f"  why: {self.reason}", f"  tokens a step: {self.step_tokens:,}"]
        if self.is_cached:
            when = "cached already" if self.stored else "cached once"
            lines.append(f"  {when}: {self.prefill_tokens:,} tokens, {size(self.cache_bytes)}")
        if self.mode == "recompute":
            lines.append(f"  input tokens a step, without gradient: {self.prefill_tokens:,}")
        if self.folder is not None:
            lines.append(f"  folder of the cache: {self.folder}")
        if self.features is not None:
            lines.append(f"  {self.features}")
        lines.append(f"  memory budget of the cache: {size(self.budget_bytes)}")
        if disk := self.disk_bytes or (self.features and self.features.disk_bytes):
            lines.append(f"  disk budget of all caches: {size(disk)}")
        if self.backward_bytes:
            lines.append(f"  kept for the backward pass, at most: {size(self.backward_bytes)}")
        if self.checkpointing_reason:
            on = "on" if self.checkpointing else "off"
            lines.append(f"  gradient checkpointing: {on}, {self.checkpointing_reason}")
        return "\n".join(lines)


def size(count: int) -> str:
    """Write a number of bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
