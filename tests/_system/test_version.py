"""The version of a source tree is the one that the build backend writes into a package built from it."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from softprompt._system import version as module
from softprompt._system.version import FALLBACK, from_git, version

ROOT = Path(__file__).parents[2]
SECTION = re.compile(r"^\[tool\.hatch\.version.*?(?=^\[tool\.hatch\.build)", re.M | re.S)
PROJECT = '[project]\nname = "tree"\ndynamic = ["version"]\n'
#: What happens to a tree, one after the other.
HISTORY = (
    *("commit", "change", "commit", "tag v0.1.0", "change", "commit", "commit", "tag other"),
    *("tag v1.0rc1", "commit"),
)


@pytest.fixture
def tree(tmp_path, tmp_path_factory, monkeypatch):
    """A git tree with this project's rule for versions; `tree(step)` is one step of its history.

    The user's configuration signs commits and tags, with a program that fails.
    """
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    configuration = tmp_path_factory.mktemp("user") / "gitconfig"
    configuration.write_text("[commit]\ngpgsign = true\n[tag]\ngpgsign = true\n[gpg]\nprogram = none\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    section = SECTION.search((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[0]
    (tmp_path / "pyproject.toml").write_text(PROJECT + section, encoding="utf-8")

    def git(*arguments):
        settings = ("user.name=a", "user.email=a@example.org", "commit.gpgsign=false", "tag.gpgsign=false")
        options = [part for setting in settings for part in ("-c", setting)]
        subprocess.run(["git", *options, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")

    def step(text):
        if text == "change":
            with (tmp_path / "pyproject.toml").open("a", encoding="utf-8") as file:
                file.write("\n")
        elif text == "commit":
            git("add", "--all")
            git("commit", "--allow-empty", "--message", text)
        else:
            git(*text.split())
        return tmp_path

    return step


def built(folder):
    """The version that hatchling gives the project in the folder."""
    metadata = pytest.importorskip("hatchling.metadata.core", reason="NO VERSION TESTS: no hatchling")
    pytest.importorskip("hatch_vcs", reason="NO VERSION TESTS: no hatch-vcs")
    from hatchling.plugin.manager import PluginManager

    return metadata.ProjectMetadata(str(folder), PluginManager()).version


def test_it_is_the_backends_after_every_step(tree):
    versions = []
    for step in HISTORY:
        folder = tree(step)
        versions.append(from_git(folder))
        # a changed tree's version has the date, which may change in between
        assert built(folder) in (versions[-1], from_git(folder)), step
    tags = [version for version in versions if "dev" not in version]
    assert tags == ["0.1.0", "1.0rc1"] and versions[0].startswith(f"{FALLBACK.removesuffix('0')}1+g")
    assert re.fullmatch(r"0\.1\.1\.dev0\+g[0-9a-f]{9}\.d\d{8}", versions[4])


def test_a_package_built_without_git_has_the_fallback(tmp_path):
    section = SECTION.search((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[0]
    (tmp_path / "pyproject.toml").write_text(PROJECT + section, encoding="utf-8")
    assert built(tmp_path) == FALLBACK


def test_this_tree_is_asked_and_where_it_has_no_answer_the_metadata(monkeypatch):
    if (ROOT / ".git").exists() and (expected := from_git(ROOT)) is not None:
        assert version.__wrapped__() == expected
    monkeypatch.setattr(module, "from_git", lambda top: None)
    assert version.__wrapped__() == importlib.metadata.version("softprompt")

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert version.__wrapped__() == FALLBACK


def test_without_git_or_a_commit_there_is_no_answer(tmp_path, tree, monkeypatch):
    assert from_git(tmp_path) is None
    tree("commit")
    assert from_git(tmp_path) is not None
    monkeypatch.setenv("PATH", "")
    assert from_git(tmp_path) is None
