"""A rule says which methods are preferred to which others, when it applies, and on which evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from ..candidates import CANDIDATES
from ..requirements import Needs


@dataclass(frozen=True)
class Evidence:
    """The evidence says where a rule comes from."""

    source: str  # a paper, a page of this project, or "by construction"
    figures: str
    limits: str = ""  # what it does not show
    command: str = ""  # that measures it again, where the figures are our own
    sets: int = 0  # data sets that it was measured on; 0: by construction, or no comparison


@dataclass(frozen=True)
class Rule:
    """A rule is a fact about some methods: it excludes them, orders them, or is a remark."""

    name: str
    when: Callable[[Needs], bool]
    condition: str  # `when` in words
    about: tuple[str, ...]  # the methods that the fact describes
    says: str
    evidence: Evidence
    over: tuple[str, ...] = ()  # `about` is preferred to these
    under: tuple[str, ...] = ()  # these are preferred to `about`
    excludes: bool = False
    each: Callable[[str, Needs], bool] | None = None  # whether it holds for one of `about`

    def holds(self, method: str, needs: Needs) -> bool:
        """Return whether the rule applies to this method under these needs."""
        return method in self.about and self.when(needs) and (not self.each or self.each(method, needs))

    @property
    def preferences(self) -> tuple[tuple[str, str], ...]:
        """Return the pairs (preferred, other)."""
        return (*product(self.about, self.over), *product(self.under, self.about))


ALL = tuple(CANDIDATES)
TRAINED = tuple(name for name, c in CANDIDATES.items() if c.is_trained)
UNTRAINED = tuple(name for name, c in CANDIDATES.items() if not c.is_trained)
PREFIXES = tuple(name for name, c in CANDIDATES.items() if c.depth == "kv")
TABLES = ("prefix-tuning/after", "prefix-tuning/before")
PROMPTS = ("prompt-tuning/after", "prompt-tuning/before")
GENERATED = ("generated-prefix/after", "generated-prompt/after")
AFTER = tuple(name for name, c in CANDIDATES.items() if c.placement == "after")
BEFORE = tuple(name for name, c in CANDIDATES.items() if c.placement == "before")
SOFT = tuple(name for name, c in CANDIDATES.items() if c.depth == "embedding")
MULTITASK, LORA, FEW_SHOT = "multitask-prompt-tuning/after", "lora", "few-shot"

LITTLE = 64  # rows: fewer are few
BENCHMARK = "python -m benchmarks.quality --data DIR"
SST2 = "docs/results.md, SST-2, 1,000 training sentences"
BOARD = "Hugging Face PEFT, method_comparison/MetaMathQA (Llama-3.2-3B, GSM8K)"


def required(*names: str) -> Callable[[Needs], bool]:
    """Return a test of whether the user requires any of these."""
    return lambda needs: any(getattr(needs.required, name) not in (None, False) for name in names)


def by_construction(reason: str, limits: str = "") -> Evidence:
    """Return evidence that follows from how the method works."""
    return Evidence("by construction", reason, limits)
