"""Cases of the conformance suite, made from the registry: a new method is in without writing a test.

A test that takes `case` runs for every method × placement × option variant, one that takes `family`
for every model family.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from softprompt import methods
from softprompt.data.collate import Batch, batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection
from softprompt.lm import families
from softprompt.lm.apply import injection_for
from softprompt.lm.causal import CausalLM
from softprompt.methods.base import SoftPrompt
from softprompt.testing.material import MethodOnModel

HOME = ("llama", "gpt2", "qwen3")  # every option of every method is run on these; on the others every method
# encoders, which write no text, have a file of their own
FAMILIES = (*HOME, *(f for f in (*families.DECODERS, *families.ENCODER_DECODERS) if f not in HOME))
# What may be missing is listed here; test_refusals.py checks that it is refused.
NO_PREFIX = ("mamba", "mamba2", "bloom", "falcon", "mpt")
NO_SOFT_GENERATION: tuple[str, ...] = ()  # families whose `generate` takes no embeddings; none at present
KV = ("prefix-tuning", "generated-prefix", "llama-adapter")
SMALL = {"length": 4, "hidden": 16, "bottleneck": 8, "middle": 16, "top_layers": 2, "layer": 1, "rank": 2}
SOURCES = [{"source": "hidden"}, {"source": "encoder"}]
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "p-tuning": [{"encoder": "lstm"}],
    "prefix-tuning": [
        {"values_only": True},
        {"freeze_first": True},
        {"reparameterize": True},
        {"layer_scale": True},
    ],
    "generated-prompt": SOURCES,
    "generated-prefix": SOURCES,
}


@dataclass(frozen=True)
class Case:
    """A method by name with its options."""

    method: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        shown = [
            value if isinstance(value, str) else key
            for key, value in self.options.items()
            if key not in SMALL and key != "encoder"
        ]
        return "-".join([self.method, *shown, *(["lstm"] if self.options.get("encoder") else [])])


def _cases(variants: dict[str, list[dict[str, Any]]], apart: bool = False) -> list[Case]:
    """Method × placement × variant; `apart`: the places that encoder-decoder models have."""
    cases = []
    for name, method in methods.METHODS.items():
        if name == "none":
            continue
        known = method.options()
        small = {key: value for key, value in SMALL.items() if key in known}
        places: list[dict[str, Any]] = [{"placement": p} for p in ("before", "after") if "placement" in known]
        if apart and "placement" in known and name not in KV:
            places += [{"placement": "decoder"}, {"placement": "both"}]
        if apart and "stacks" in known:
            places += [{"placement": "before", "stacks": s} for s in ("encoder", "decoder", "cross")]
        for place in places or [{}]:
            cases += [Case(name, small | variant | place) for variant in [{}, *variants.get(name, [])]]
    return cases


CASES = _cases(VARIANTS)
FEWER, APART = _cases({}), _cases({}, apart=True)


def cases_of(family: str) -> list[Case]:
    """What is run on a family."""
    if family in families.ENCODER_DECODERS:
        return APART
    return CASES if family in HOME else [c for c in FEWER if family not in NO_PREFIX or c.method not in KV]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    names = metafunc.fixturenames
    if "family" in names and "case" in names:
        pairs = [(family, case) for family in FAMILIES for case in cases_of(family)]
        ids = [f"{family}-{case.id}" for family, case in pairs]
        metafunc.parametrize(("family", "case"), pairs, ids=ids)
    elif "family" in names and "family" not in chosen:
        metafunc.parametrize("family", FAMILIES)
    elif "case" in names:
        metafunc.parametrize("case", CASES, ids=lambda case: case.id)


@pytest.fixture(scope="session")
def all_cases() -> list[Case]:
    """For tests that put every case side by side."""
    return CASES


@pytest.fixture
def family_cases(family) -> list[Case]:
    """Every case that is run on the test's family."""
    return cases_of(family)


@pytest.fixture
def generates(family) -> Callable[[Injection], bool]:
    """Whether transformers generates under this injection at all; what it refuses is tested apart."""
    soft = ("before", "after")
    return lambda injection: family not in NO_SOFT_GENERATION or not {*soft} & {*injection.channels()}


@pytest.fixture
def lm(request, lms) -> CausalLM:
    """The family's model where a test has one, else the Llama."""
    return lms(request.getfixturevalue("family") if "family" in request.fixturenames else "llama")


@pytest.fixture
def build(setting, perturb, encoder_folder) -> Callable[..., SoftPrompt]:
    """`build(lm, case)`: a fresh method with every parameter changed at random."""

    def make(lm: CausalLM, case: Case, *, seed: int = 0, perturbed: bool = True) -> SoftPrompt:
        options = dict(case.options)
        if options.get("source") == "encoder":
            options["encoder"] = encoder_folder
        method = methods.build(case.method, setting(lm, seed=seed), options)
        return perturb(method, seed=seed) if perturbed else method

    return make


@pytest.fixture
def method(lm, case, build) -> SoftPrompt:
    """The case's method on the test's model."""
    return build(lm, case)


@pytest.fixture
def subject(lm, case, method, batch, tmp_path) -> MethodOnModel:
    """The same, as the checks of `softprompt.testing` take it."""
    return MethodOnModel(case.method, case.options, lm, tmp_path, batch, method)


@pytest.fixture
def batch(rows_to_batch) -> Batch:
    """Four rows of unlike lengths under two prompts; one input is a single token."""
    inputs = [[5, 17, 80, 33, 9], [42], [60, 61, 7, 12, 90, 33, 33, 2, 71], [8, 8, 30]]
    return rows_to_batch(inputs, [[11, 12], [90], [4, 70, 70], [19]], [0, 1, 1, 0])


@pytest.fixture
def plain_differs() -> Callable[..., None]:
    """The injection must change every row's logits, or a test would pass without testing anything."""

    def check(lm: CausalLM, batch: Batch, logits: torch.Tensor, least: float = 1e-3) -> None:
        change = (lm.logits(batch) - logits).abs().amax(dim=2)  # [B, T]
        assert change[batch.target_mask].min() > least

    return check


@pytest.fixture
def companions(lm, build, batch) -> Injection:
    """Rows of four other methods, kinds and lengths, to stand beside a case's rows, and a plain one."""
    if lm.name not in _companions:
        _companions[lm.name] = _make_companions(lm, build, batch)
    return _companions[lm.name]


_companions: dict[str, Injection] = {}  # by model: the same beside every case


def _make_companions(lm, build, batch) -> Injection:
    if "prefix" in lm.spec.limits:
        others = [
            Case("prompt-tuning", {"length": n, "placement": p})
            for n, p in ((2, "after"), (5, "before"), (7, "after"), (3, "before"))
        ]
    else:
        others = [
            Case("prefix-tuning", {"length": 2, "placement": "before"}),
            Case("prompt-tuning", {"length": 5, "placement": "before"}),
            Case("prefix-tuning", {"length": 7, "placement": "after"}),
            Case("llama-adapter", {"length": 3, "top_layers": 1}),
        ]
    with torch.no_grad():
        made = [injection_for(lm, build(lm, case, seed=5), _row(batch, 0)) for case in others]
    return Injection.cat([*made, Injection()])


@dataclass(frozen=True)
class Mixed:
    """Rows of all kinds in one batch, and each as a batch of its own without padding."""

    batch: Batch
    injection: Injection
    rows: tuple[tuple[Batch, Injection], ...]
    kinds: tuple[str, ...]


@pytest.fixture
def mixed(lm, family, build, batch, row, generates) -> Mixed:
    """A row under each kind of injection that the family takes, of unlike lengths, and a plain one."""
    kinds = {
        f"{name}-{place}": Case(name, {"length": length, "placement": place})
        for (name, place), length in zip(
            [(n, p) for n in ("prefix-tuning", "prompt-tuning") for p in ("before", "after")],
            (2, 7, 5, 3),
            strict=True,
        )
    }
    kinds["llama-adapter"] = Case("llama-adapter", {"length": 3, "top_layers": 1})
    rows: list[tuple[str, Batch, Injection]] = []
    for i, (kind, case) in enumerate(kinds.items()):
        if "prefix" in lm.spec.limits and case.method in KV:
            continue
        single = row(batch, i % batch.size)
        with torch.no_grad():
            injection = injection_for(lm, build(lm, case, seed=i), single)
        if generates(injection):
            rows.append((kind, single, injection))
    rows.append(("plain", row(batch, 0), Injection()))
    names, singles, injections = zip(*rows, strict=True)
    inputs = [b.input_ids[0].tolist() for b in singles]
    targets = [b.target_ids[0].tolist() for b in singles]
    together = batch_of_ids(inputs, targets)
    return Mixed(together, Injection.cat(injections), tuple(zip(singles, injections, strict=True)), names)


def _row(batch: Batch, index: int) -> Batch:
    return batch.select(torch.tensor([index]))


@pytest.fixture
def row() -> Callable[[Batch, int], Batch]:
    """`row(batch, i)`: one row as a batch of its own, without the padding it had."""

    def take(batch: Batch, index: int) -> Batch:
        ids = batch.input_ids[index][batch.input_mask[index]].tolist()
        target = batch.target_ids[index][batch.target_mask[index]].tolist()
        from dataclasses import replace

        made = batch_of_ids([ids], [target], [int(batch.prompt_ids[index])])
        return replace(made, texts=(batch.texts[index],) if batch.texts else ())

    return take


@pytest.fixture
def unpadded() -> Callable[[torch.Tensor, Batch, int], torch.Tensor]:
    """`unpadded(logits, batch, i)`: a row's logits at its real targets [T, V]."""

    def take(logits: torch.Tensor, batch: Batch, index: int) -> torch.Tensor:
        return logits[index][batch.target_mask[index]]

    return take


@pytest.fixture
def greedy() -> Callable[..., list[list[int]]]:
    """Decoding written naively: the whole row computed anew for every token."""

    def decode(lm: CausalLM, batch: Batch, injection: Injection, count: int) -> list[list[int]]:
        made: list[list[int]] = [[] for _ in range(batch.size)]
        for _ in range(count):
            logits = lm.logits(batch.with_targets([[*ids, 0] for ids in made]), injection)
            for ids, best in zip(made, logits[:, -1].argmax(-1).tolist(), strict=True):
                ids.append(best)
        return made

    return decode


@pytest.fixture
def manifest_for(encoder_folder) -> Callable[..., dict[str, Any]]:
    """`manifest_for(lm, case)`: what `tune` would tell `artifact.save`."""

    def make(lm: CausalLM, case: Case) -> dict[str, Any]:
        from softprompt.config.load import recipe_from_dict
        from softprompt.lm.loading import fingerprint

        options = dict(case.options)
        if options.get("source") == "encoder":
            options["encoder"] = encoder_folder
        defaults = {name: p.default for name, p in methods.find(case.method).options().items()}
        method = {"name": case.method, **options}
        recipe = recipe_from_dict({"data": {"train": "rows.jsonl"}, "method": method}).to_dict()
        return {
            "method": case.method,
            "options": defaults | options,
            "prompts": ["joke", "fact"],
            "labels": None,
            "recipe": recipe,
            "base": {"name": lm.name, "mode": "frozen", "options": {}, "fingerprint": fingerprint(lm)},
            "data": {"fingerprint": "0" * 64, "rows": 4},
            "trained_parameters": 1,
            "dev": {"metrics": {}, "intervals": {}, "n": 0},
            "versions": {"softprompt": "0"},
            "created": "today",
            "command": "test",
        }

    return make


@pytest.fixture
def refused():
    """`refused(call, *words)`: the call fails with what, and a fix, that hold all the words."""

    def check(call, *words: str) -> SoftPromptError:
        with pytest.raises(SoftPromptError) as caught:
            call()
        error = caught.value
        assert error.fix or "did you mean" in error.what, f"says no way out: {error}"
        for word in words:
            assert word in str(error), f"{word!r} is not in: {error}"
        return error

    return check
