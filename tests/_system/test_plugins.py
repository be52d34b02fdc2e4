"""Entries of other packages in a registry, from a folder with the metadata that an installed package has."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from softprompt._system.plugins import Registry
from softprompt.errors import SoftPromptError

GROUP = "softprompt.numbers"


def read(name: str, target: object) -> int:
    if not isinstance(target, int):
        raise SoftPromptError(f"a number is an int, not {target!r}", fix="give an int")
    return target


def error_of(call, *given) -> SoftPromptError:
    with pytest.raises(SoftPromptError) as caught:
        call(*given)
    return caught.value


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Callable[..., Registry[int]]:
    """`installed(a={"name": "module:object"})`: a registry that sees these packages, version 1.2 of each."""

    def make(**packages: dict[str, str]) -> Registry[int]:
        for package, points in packages.items():
            place = tmp_path / package
            info = place / f"{package}-1.2.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
            lines = "".join(f"{name} = {value}\n" for name, value in points.items())
            (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
            (place / f"{package}_code.py").write_text("ONE = 1\nTEXT = 'x'\n")
            (place / f"{package}_broken.py").write_text("import nothing_of_this_name\n")
            (place / f"{package}_leaves.py").write_text("raise SystemExit('no licence')\n")
            monkeypatch.syspath_prepend(place)
        return Registry("number", GROUP, {"zero": 0}, read)

    yield make
    for name in [name for name in sys.modules if name.startswith(("alpha_", "beta_"))]:
        del sys.modules[name]


def test_an_installed_entry_is_read(installed):
    numbers = installed(alpha={"one": "alpha_code:ONE"})
    assert dict(numbers) == {"zero": 0, "one": 1} and len(numbers) == 2 and numbers.get("two") is None
    origin = numbers.origin("one")
    assert (origin.distribution, origin.version, origin.target) == ("alpha", "1.2", "alpha_code:ONE")
    assert numbers.origin("zero") is None and not numbers.broken()


def test_nothing_is_imported_before_it_is_asked_for(installed):
    numbers = installed(alpha={"one": "alpha_code:ONE"})
    assert numbers["zero"] == 0 and "one" in numbers and "alpha_code" not in sys.modules
    assert numbers["one"] == 1 and "alpha_code" in sys.modules


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("alpha_broken:ONE", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("alpha_leaves:ONE", "SystemExit: no licence"),
        ("alpha_code:TWO", "AttributeError"),
        ("alpha_code:TEXT", "a number is an int, not 'x'"),
    ],
)
def test_a_broken_package_is_an_error_for_its_own_name(installed, value, why):
    numbers = installed(alpha={"bad": value, "one": "alpha_code:ONE"})
    assert dict(numbers) == {"zero": 0, "one": 1} and "bad" in numbers
    for error in (numbers.broken()["bad"], error_of(lambda: numbers["bad"])):
        assert "number 'bad' of alpha 1.2 cannot be used" in error.what and why in error.why and error.fix


def test_one_name_of_two_packages_is_refused(installed):
    numbers = installed(alpha={"one": "alpha_code:ONE"}, beta={"one": "beta_code:ONE"})
    error = error_of(lambda: numbers["one"])
    assert "alpha 1.2 and beta 1.2" in error.what and "pip uninstall beta" in error.fix
    assert list(numbers) == ["zero"]


def test_a_name_of_the_library_is_refused(installed):
    numbers = installed(alpha={"zero": "alpha_code:ONE"})
    error = error_of(lambda: numbers["zero"])
    assert "softprompt itself and alpha 1.2" in error.what and error.fix == "pip uninstall alpha"


def test_a_name_that_no_command_could_take_is_refused(installed):
    assert "letters, digits" in installed(alpha={"one/two": "alpha_code:ONE"}).broken()["one/two"].why


def test_registered_in_this_process(installed):
    numbers = installed(alpha={"one": "alpha_code:ONE"})
    assert numbers.register("two", 2) == numbers["two"] == 2 == numbers.register("two", 2)
    assert numbers.origin("two").distribution == "" and list(numbers) == ["zero", "one", "two"]
    for taken, owner in (("zero", "softprompt"), ("one", "alpha 1.2")):
        assert owner in error_of(numbers.register, taken, 3).why
    with pytest.raises(SoftPromptError, match="a number is an int"):
        numbers.register("three", "3")
    del numbers["two"]
    assert "two" not in numbers
