"""An artifact records the package of its method, and says what to install where it is missing."""

from __future__ import annotations

import pytest

from softprompt import methods
from softprompt._system.plugins import Origin
from softprompt.artifacts import artifact as artifacts
from softprompt.artifacts.interop.foreign import manifest_of
from softprompt.errors import SoftPromptError
from softprompt.methods import prompt_tuning
from softprompt.methods.method import Method
from softprompt.tuned import opened

NAME = "their-method"


def error_of(call, *given) -> SoftPromptError:
    with pytest.raises(SoftPromptError) as caught:
        call(*given)
    return caught.value


@pytest.fixture
def saved(llama, setting, tmp_path, request):
    """An artifact of a method that was there when it was saved, and is no longer."""
    methods.register(NAME, Method(prompt_tuning.build, 0.1, "text"))
    origin = getattr(request, "param", None) or methods.METHODS.origin(NAME)
    methods.METHODS._origins[NAME] = origin
    options = {"length": 2, "placement": "after", "init": "vocab"}
    method = methods.build(NAME, setting(llama), options)
    about = manifest_of(tmp_path / "a", llama, NAME, options, ("joke", "fact"), "a test")
    artifacts.save(tmp_path / "a", method, llama, about | {"trained_parameters": 1})
    del methods.METHODS[NAME]
    return tmp_path / "a"


@pytest.mark.parametrize("saved", [Origin("their-package", "1.2", "their_code:Theirs")], indirect=True)
def test_it_says_what_to_install(saved, llama):
    artifact = artifacts.load(saved)
    assert artifact.manifest["distribution"] == {
        "name": "their-package",
        "version": "1.2",
        "object": "their_code:Theirs",
    }
    assert "`pip install 'their-package==1.2'`" in (saved / "README.md").read_text()
    for call in (lambda: artifact.method(llama), lambda: opened(artifact, llama, plain=True)):
        error = error_of(call)
        assert "'their-method', which is not installed" in error.what
        assert error.fix == "pip install 'their-package==1.2'"


def test_one_that_was_registered_says_so(saved, llama):
    error = error_of(artifacts.load(saved).method, llama)
    assert "registered in one process" in error.why and "softprompt.methods.register" in error.fix


def test_the_librarys_methods_record_no_package(llama, setting, tmp_path):
    method = methods.build("prompt-tuning", setting(llama), {"length": 2})
    about = manifest_of(tmp_path / "b", llama, "prompt-tuning", {"length": 2}, ("joke", "fact"), "a test")
    artifacts.save(tmp_path / "b", method, llama, about | {"trained_parameters": 1})
    assert "distribution" not in artifacts.load(tmp_path / "b").manifest


def test_another_version_of_the_package_of_a_method_is_another_run(monkeypatch):
    from softprompt import methods
    from softprompt._system.plugins import Origin, Registry
    from softprompt.config.identity import settings_differ
    from softprompt.config.load import recipe_from_dict
    from softprompt.training import decisive

    assert methods.METHODS.origin("prompt-tuning") is None
    counted = []
    for version in ("1.0", "1.1"):
        origin = Origin("low-rank", version, "low_rank:Method")
        monkeypatch.setattr(Registry, "origin", lambda self, name, origin=origin: origin)
        counted.append(decisive.settings(recipe_from_dict({"data": "rows.jsonl"})))
    before, after = counted
    assert settings_differ({"settings": before}, after) == [
        "method.package: was 'low-rank 1.0', is 'low-rank 1.1'"
    ]
