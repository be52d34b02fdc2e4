"""`check_method` runs the conformance suite on a method of your own, like scikit-learn's `check_estimator`.

    from softprompt.testing import check_method
    check_method(MyMethod)

With pytest, one test for each contract:

    @pytest.mark.parametrize("check", each_check(MyMethod), ids=str)
    def test_contract(check):
        check()
"""

from __future__ import annotations

import tempfile
import typing
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import methods
from ..errors import SoftPromptError, unknown
from ..methods.method import Method, method_of
from .broken import ContractBroken
from .checks import CHECKS, ONCE, refusal
from .material import FAMILIES, MethodOnModel, tiny_lm, weights_of

__all__ = ["CHECKS", "FAMILIES", "Checked", "ContractBroken", "MethodCheck", "check_method", "each_check"]
LENGTH = 4


@dataclass(frozen=True)
class Checked:
    """Lists the checks that passed, and the models that the method refuses, with reasons."""

    passed: tuple[str, ...]
    refused: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.passed)} checks passed"]
        lines += [f"refused on {where}: {why}" for where, why in self.refused.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class MethodCheck:
    """One contract, on one model, with one set of options. Calling it raises `ContractBroken`, or returns.

    It returns the reason where the method refuses the model with a SoftPromptError, else None.
    """

    contract: str
    method: Method
    label: str
    options: Mapping[str, Any]
    family: str

    def __call__(self) -> str | None:
        with tempfile.TemporaryDirectory() as folder, _in_registry(self.label, self.method) as name:
            subject = MethodOnModel(name, self.options, tiny_lm(self.family), Path(folder))
            before = weights_of(subject.lm)
            try:
                if (refused := refusal(subject)) is not None:
                    return refused.line
                CHECKS[self.contract](subject)
            except ContractBroken as error:
                raise self._broken(error.what, error.fix, subject) from error.__cause__
            except Exception as error:  # a method of somebody else's may fail in any way
                line = f"{type(error).__name__}: {error}"
                raise self._broken(f"it raised {line}", "see the exception above", subject) from error
            finally:
                if weights_of(subject.lm) != before:
                    tiny_lm.cache_clear()  # a changed base would fail the next method's checks
        return None

    def _broken(self, happened: str, fix: str, subject: MethodOnModel) -> ContractBroken:
        return ContractBroken(happened, fix, contract=self.contract, method=self.label, where=subject.where)

    def __str__(self) -> str:
        return "-".join([self.family, *map(str, self.options.values()), self.contract])


def check_method(
    target: Any,
    *,
    options: Sequence[Mapping[str, Any]] = ({},),
    families: Sequence[str] = FAMILIES,
    skip: Sequence[str] = (),
) -> Checked:
    """Run the conformance suite on a method, with tiny random models. It takes some seconds.

    `target`: a class, module or `Method` as an entry point names it, or the name of a registered method.
    `options`: sets of options to check, each at every placement that the method has. `families`: tiny models
    of `softprompt.lm.families`. `skip`: names of contracts that are not checked. Raises `ContractBroken` (an
    AssertionError) for the first contract that is broken, with its name, the model and the fix, and
    SoftPromptError for a target that is no method, or that no model suits.
    """
    refused: dict[str, str] = {}
    passed = []
    for check in each_check(target, options=options, families=families, skip=skip):
        reason = check()
        if reason is None:
            passed.append(str(check))
        else:
            refused[check.family] = reason
    if not passed:
        raise SoftPromptError(
            "the method refuses every model that it was checked on",
            why="; ".join(f"{family}: {reason}" for family, reason in refused.items()),
            fix="name families that it suits: check_method(MyMethod, families=[…])",
        )
    return Checked(tuple(passed), refused)


def each_check(
    target: Any,
    *,
    options: Sequence[Mapping[str, Any]] = ({},),
    families: Sequence[str] = FAMILIES,
    skip: Sequence[str] = (),
) -> list[MethodCheck]:
    """Return the checks of `check_method` one by one, for a test framework."""
    if unknown_names := [name for name in skip if name not in CHECKS]:
        raise unknown("contract", unknown_names[0], CHECKS)
    label = target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)
    method = methods.find(target) if isinstance(target, str) else method_of(label, target)
    return [
        MethodCheck(contract, method, label, {**given, **place}, family)
        for family in families
        for given in options
        for place in _places(method, given, family)
        for contract in CHECKS
        if contract not in skip and (contract not in ONCE or family == families[0])
    ]


def _places(method: Method, given: Mapping[str, Any], family: str) -> list[dict[str, Any]]:
    """Return the placements to check, each with a small length: those that the family's kind has."""
    known = method.options()
    small = {"length": LENGTH} if "length" in known and "length" not in given else {}
    if "placement" not in known or "placement" in given:
        return [small]
    every = typing.get_args(method.hints()["placement"]) or (known["placement"].default,)
    apart = tiny_lm(family).spec.kind == "encoder-decoder"
    return [{**small, "placement": p} for p in every if apart or p not in ("decoder", "both")]


@contextmanager
def _in_registry(label: str, method: Method) -> typing.Iterator[str]:
    """Look the method up in the registry under a name, as training and artifacts do."""
    registered = next((name for name, entry in methods.METHODS.items() if entry == method), None)
    if registered is not None:
        yield registered
        return
    name = f"{label}.checked"
    methods.METHODS[name] = method
    try:
        yield name
    finally:
        del methods.METHODS[name]
