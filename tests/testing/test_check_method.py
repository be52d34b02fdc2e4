"""The suite passes for the library's methods, and catches methods that break one contract each."""

from __future__ import annotations

import pytest
import torch

from softprompt import methods
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection
from softprompt.methods import init as initialisers
from softprompt.methods.base import Placement, Reads, Setting, SoftPrompt, soft_injection, soft_length
from softprompt.methods.init import Init
from softprompt.testing import CHECKS, ContractBroken, check_method, each_check, material


class Sound(SoftPrompt):
    """Soft tokens by prompt id. The classes below change one thing each."""

    lr = 3e-2

    def __init__(self, table: torch.Tensor, placement: Placement) -> None:
        super().__init__()
        self.table, self.placement = torch.nn.Parameter(table), placement
        self.num_prompts = len(table)

    def forward(self, prompt_ids, inputs=None) -> Injection:
        return soft_injection(self.table[prompt_ids], self.placement)

    @classmethod
    def build(
        cls, setting: Setting, *, length: int = 4, placement: Placement = "after", init: Init = "vocab"
    ) -> Sound:
        length = soft_length(length, placement)
        return cls(initialisers.soft_tokens(setting, length, init, None, None), placement)


class LeaksBetweenRows(Sound):
    def forward(self, prompt_ids, inputs=None):
        vectors = self.table[prompt_ids]
        return soft_injection(vectors + 0.1 * vectors.mean(0, keepdim=True), self.placement)


class ReadsPadding(Sound):
    """Reads the mean of the input's columns, padding included."""

    reads = Reads("embeddings")

    def forward(self, prompt_ids, inputs=None):
        vectors = self.table[prompt_ids]
        if inputs is not None:
            vectors = vectors + inputs.values.mean(1, keepdim=True)
        return soft_injection(vectors, self.placement)

    def static(self, prompt_ids):
        return soft_injection(self.table[prompt_ids], self.placement)


class IgnoresPromptIds(Sound):
    def forward(self, prompt_ids, inputs=None):
        return soft_injection(self.table[:1].expand(len(prompt_ids), -1, -1), self.placement)


class MixesPrompts(Sound):
    def forward(self, prompt_ids, inputs=None):
        return soft_injection(self.table[prompt_ids] + self.table.mean(0), self.placement)


class LosesItsState(Sound):
    """Keeps random numbers where `state_dict` does not see them."""

    def __init__(self, table, placement):
        super().__init__(table, placement)
        self.noise = torch.randn(table.shape[1:])

    def forward(self, prompt_ids, inputs=None):
        return soft_injection(self.table[prompt_ids] + self.noise, self.placement)

    @classmethod
    def build(cls, setting: Setting, *, length: int = 4, placement: Placement = "after") -> LosesItsState:
        shapes_only = not hasattr(setting.lm, "model")
        built = cls(torch.ones(len(setting.prompts), length, setting.lm.spec.hidden_size), placement)
        if shapes_only:
            built.noise = torch.zeros_like(built.noise)
        return built


class ChangesTheBase(Sound):
    @classmethod
    def build(
        cls, setting: Setting, *, length: int = 4, placement: Placement = "after", init: Init = "vocab"
    ) -> ChangesTheBase:
        if hasattr(setting.lm, "model"):
            with torch.no_grad():
                next(setting.lm.model.parameters()).add_(0.01)
        return super().build(setting, length=length, placement=placement, init=init)


class IsRandom(Sound):
    def forward(self, prompt_ids, inputs=None):
        return soft_injection(torch.nn.functional.dropout(self.table[prompt_ids], 0.5), self.placement)


class HasADeadParameter(Sound):
    def __init__(self, table, placement):
        super().__init__(table, placement)
        self.unused = torch.nn.Parameter(torch.ones(3))


class TakesMorePositions(Sound):
    def forward(self, prompt_ids, inputs=None):
        vectors = self.table[prompt_ids]
        return soft_injection(torch.cat([vectors, vectors], 1), self.placement)


class IgnoresPlacement(Sound):
    def forward(self, prompt_ids, inputs=None):
        return soft_injection(self.table[prompt_ids], "after")


class HalfPrecision(Sound):
    def forward(self, prompt_ids, inputs=None):
        return soft_injection(self.table[prompt_ids].bfloat16(), self.placement)


class LearnsNothing(Sound):
    lr = 1e-9


class Raises(Sound):
    def forward(self, prompt_ids, inputs=None):
        raise RuntimeError("shapes do not fit")


CAUGHT = {
    LeaksBetweenRows: "row_alone",
    ReadsPadding: "row_alone",
    IgnoresPromptIds: "prompt_ids_choose",
    MixesPrompts: "prompts_are_independent",
    LosesItsState: "saved_and_loaded",
    ChangesTheBase: "base_stays_as_it_was",
    IsRandom: "same_seed_same_start",
    HasADeadParameter: "gradients_reach_the_method_alone",
    TakesMorePositions: "injection_is_well_formed",
    IgnoresPlacement: "injection_is_well_formed",
    HalfPrecision: "injection_is_well_formed",
    LearnsNothing: "learns",
    Raises: "base_stays_as_it_was",
}


@pytest.mark.parametrize("method", CAUGHT, ids=lambda method: method.__name__)
def test_a_broken_method_is_caught_by_its_contract(method):
    before = dict(methods.METHODS)
    with pytest.raises(AssertionError) as caught:
        check_method(method, families=["llama"])
    error = caught.value
    assert isinstance(error, ContractBroken) and error.contract == CAUGHT[method] and error.fix
    assert str(error).startswith(
        f"{method.__name__} breaks the contract '{CAUGHT[method]}' (tiny-llama, length=4"
    )
    assert dict(methods.METHODS) == before


def test_a_changed_base_does_not_fail_the_next_method():
    with pytest.raises(ContractBroken):
        check_method(ChangesTheBase, families=["llama"])
    start = material.weights_of(material.tiny_lm("llama"))
    assert check_method(Sound, families=["llama"], options=[{"placement": "after"}]).passed
    material.tiny_lm.cache_clear()
    assert material.weights_of(material.tiny_lm("llama")) == start


def test_a_sound_method_passes_on_every_kind_of_model():
    every = [{"placement": place} for place in ("decoder", "both")]
    checked = check_method(Sound, families=["mistral", "t5"], options=every, skip=["learns"])
    assert len(checked.passed) == 2 * 10 and "it has no encoder and decoder" in checked.refused["mistral"]


@pytest.mark.parametrize("name", [name for name in methods.METHODS if name != "none"])
def test_the_librarys_methods_pass(name):
    options = {"placement": "after"} if "placement" in methods.find(name).options() else {}
    elsewhere = ["row_alone", "cached_input", "generate_equals_forward"]  # tests/conformance runs them
    assert not check_method(name, families=["llama"], options=[options], skip=elsewhere).refused


def test_checks_one_by_one_as_a_test_framework_runs_them():
    checks = each_check(Sound, families=["gpt2"], options=[{"placement": "before"}])
    assert [check.contract for check in checks] == list(CHECKS)
    assert str(checks[0]) == "gpt2-before-4-base_stays_as_it_was"
    assert checks[0]() is None


class Refuses(Sound):
    @classmethod
    def build(cls, setting: Setting, *, length: int = 4) -> Refuses:
        raise SoftPromptError("it needs a rotary model", "positions", "another model")


def test_a_model_that_the_method_refuses_is_reported():
    with pytest.raises(SoftPromptError, match="refuses every model") as caught:
        check_method(Refuses, families=["gpt2"], skip=list(CHECKS)[1:])
    assert "it needs a rotary model" in caught.value.why


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: check_method(dict), "not the class dict"),
        (lambda: check_method("prefix-tunning"), "did you mean 'prefix-tuning'"),
        (lambda: check_method(Sound, families=["llamma"]), "did you mean 'llama'"),
        (lambda: check_method(Sound, families=["bert"]), "unknown family 'bert'"),
        (lambda: check_method(Sound, skip=["row_alon"]), "did you mean 'row_alone'"),
    ],
)
def test_wrong_arguments(call, words):
    with pytest.raises(SoftPromptError) as caught:
        call()
    assert words in caught.value.what
