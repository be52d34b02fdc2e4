"""What a rule is: a fact, when it matters, for whom, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..candidates import CONTESTANTS
from ..requirements import Needs


@dataclass(frozen=True)
class Evidence:
    """Where a rule comes from."""

    source: str  # a paper, a page of this project, or what holds by construction
    figures: str
    limits: str = ""  # what it does not show
    command: str = ""  # that measures it again, where it is our own


@dataclass(frozen=True)
class Rule:
    """A fact, when it matters, and for whom."""

    name: str
    when: Callable[[Needs], bool]
    condition: str  # the same in words
    about: tuple[str, ...]  # contestants
    says: str
    evidence: Evidence
    points: int = 0  # 0: only said
    excludes: bool = False
    each: Callable[[str, Needs], bool] | None = None  # whether it holds for one of `about`

    def holds(self, contestant: str, needs: Needs) -> bool:
        """Whether the rule fires for this contestant."""
        return (
            contestant in self.about and self.when(needs) and (not self.each or self.each(contestant, needs))
        )


ALL = tuple(CONTESTANTS)
TRAINED = tuple(name for name, c in CONTESTANTS.items() if c.is_trained)
UNTRAINED = tuple(name for name, c in CONTESTANTS.items() if not c.is_trained)
PREFIXES = tuple(name for name, c in CONTESTANTS.items() if c.depth == "kv")
TABLES = ("prefix-tuning/after", "prefix-tuning/before")
PROMPTS = ("prompt-tuning/after", "prompt-tuning/before")
GENERATED = ("generated-prefix/after", "generated-prompt/after")
AFTER = tuple(name for name, c in CONTESTANTS.items() if c.placement == "after")
BEFORE = tuple(name for name, c in CONTESTANTS.items() if c.placement == "before")
SOFT = tuple(name for name, c in CONTESTANTS.items() if c.depth == "embedding")
MULTITASK, LORA, FEW_SHOT = "multitask-prompt-tuning/after", "lora", "few-shot"

LITTLE = 64  # rows: fewer are few
QUALITY = "python -m benchmarks.quality --data DIR"
SST2 = "docs/results.md, SST-2, 1,000 training sentences"
BOARD = "Hugging Face PEFT, method_comparison/MetaMathQA (Llama-3.2-3B, GSM8K)"


def said(*names: str) -> Callable[[Needs], bool]:
    return lambda needs: any(getattr(needs.said, name) not in (None, False) for name in names)


def by_construction(what: str, limits: str = "") -> Evidence:
    return Evidence("by construction", what, limits)
