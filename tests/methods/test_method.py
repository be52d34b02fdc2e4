"""What an entry point of a method may name, and a method that is registered in one process."""

from __future__ import annotations

import dataclasses
import types

import pytest
import torch

from softprompt import PrefixTuning, methods
from softprompt.compare import candidates
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection
from softprompt.methods.base import Placement, SoftPrompt, soft_injection
from softprompt.methods.method import RESERVED, Method, method_of
from softprompt.methods.prefix_tuning import PrefixTuning as PrefixModule


class Mine(SoftPrompt):
    """Soft tokens of a constant value.

    More text.
    """

    lr = 3e-3

    def __init__(self, prompts: int, length: int, hidden: int, placement: Placement) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.ones(prompts, length, hidden))
        self.num_prompts, self.placement = prompts, placement

    def forward(self, prompt_ids, inputs=None) -> Injection:
        return soft_injection(self.table[prompt_ids], self.placement)

    @staticmethod
    def build(setting, *, length: int = 3, placement: Placement = "after") -> Mine:
        return Mine(len(setting.prompts), length, setting.lm.spec.hidden_size, placement)


@pytest.fixture
def mine():
    methods.register("mine", Mine)
    yield "mine"
    del methods.METHODS["mine"]


def test_a_class_a_module_and_a_method_are_read():
    module = types.SimpleNamespace(build=Mine.build, lr=0.1)
    read = method_of("mine", Mine)
    assert (read.build, read.lr, read.summary, read.makes()) == (
        Mine.build,
        3e-3,
        "Soft tokens of a constant value",
        Mine,
    )
    assert list(read.options()) == ["length", "placement"] and read.is_soft and not read.has_init
    module = types.ModuleType("their_module", "Their summary.")
    module.build, module.lr = Mine.build, 0.1  # type: ignore[attr-defined]
    assert (method_of("x", module).summary, method_of("x", module).lr) == ("Their summary", 0.1)
    entry = Method(Mine.build, 0.2, "text")
    assert method_of("x", entry) is entry and entry.makes() is Mine


def _with(**changes) -> type:
    return type("Changed", (Mine,), changes)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (3, "a subclass of SoftPrompt, a module or a Method, not a int"),
        (dict, "not the class dict"),
        (_with(build=None), "no `build`"),
        (_with(lr=None), "no `lr`"),
        (_with(lr=-1.0), "no `lr`"),
        (
            _with(build=staticmethod(lambda setting, *, length=3: None)),
            "option 'length' of its `build` has no type",
        ),
    ],
)
def test_another_form_is_refused(target, words):
    with pytest.raises(SoftPromptError) as caught:
        method_of("mine", target)
    assert words in caught.value.what and caught.value.fix


def test_options_that_cannot_be_one_are_refused():
    def no_default(setting, *, length: int) -> Mine: ...
    def taken(setting, *, steps: int = 3) -> Mine: ...
    def no_length(setting, *, placement: Placement = "after") -> Mine: ...

    for build, words in (
        (no_default, "option 'length' of its `build` has no default"),
        (taken, "option 'steps' of its `build` has the name of a setting (of the train)"),
        (no_length, "soft tokens and says nowhere how many"),
    ):
        with pytest.raises(SoftPromptError) as caught:
            method_of("mine", Method(build, 0.1, "text"))
        assert words in caught.value.what and caught.value.fix
    counted = method_of("mine", Method(no_length, 0.1, "text", soft_tokens=lambda options: 7))
    assert counted.is_soft


def test_names_of_a_comparison_are_reserved():
    assert set(RESERVED) == {*candidates.BASES, *candidates.REFERENCES}
    for name in RESERVED:
        with pytest.raises(SoftPromptError, match="reserved"):
            method_of(name, Mine)


def test_a_registered_method_is_looked_up_like_the_librarys(mine, llama, setting):
    built = methods.build(mine, setting(llama), {"length": 2})
    assert isinstance(built, Mine) and built.table.shape == (2, 2, 32)
    assert methods.name_of(Mine) == mine and methods.name_of(PrefixModule) == "prefix-tuning"
    assert methods.name_of(SoftPrompt) is None
    assert methods.soft_tokens(mine, {"length": 5}) == (5, 0, 5)
    with pytest.raises(SoftPromptError, match="unknown option of mine 'lenght'; did you mean 'length'"):
        methods.options(mine, lenght=3)


def test_options_as_an_object(mine):
    options = methods.options(mine, length=4)
    assert options.to_recipe() == {"name": mine, "length": 4} and dataclasses.is_dataclass(options)
    assert methods.options("prefix-tuning", length=4) == PrefixTuning(length=4)


def test_the_number_of_soft_tokens_may_be_a_function(llama):
    methods.register("counted", Method(Mine.build, 0.1, "text", lambda options: 2 * options["length"]))
    try:
        assert methods.soft_tokens("counted", {}) == (6, 0, 6)
        assert methods.soft_tokens("counted", {"length": 4}) == (8, 0, 8)
    finally:
        del methods.METHODS["counted"]
