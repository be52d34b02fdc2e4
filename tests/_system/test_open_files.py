"""The limit on open files is raised where a run needs more, and a limit that is too low is an error."""

from __future__ import annotations

import pytest

from softprompt._system import open_files
from softprompt.errors import SoftPromptError

resource = pytest.importorskip("resource", reason="there is no such limit on Windows")


@pytest.fixture
def limits(monkeypatch):
    """A process with these limits; the tuple holds what it was raised to."""
    now = [1024, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: now.__setitem__(slice(None), pair))
    return now


def test_the_limit_is_raised_only_where_it_is_too_low(limits):
    open_files.allow(100)
    assert limits == [1024, 4096]
    open_files.allow(2000)
    assert limits == [2000 + open_files.SPARE, 4096]


def test_a_limit_that_cannot_be_raised_is_an_error(limits):
    with pytest.raises(SoftPromptError, match="10,256 open files, and the system allows 4,096") as error:
        open_files.allow(10_000)
    assert "ulimit -n 10256" in error.value.fix
    assert limits == [4096, 4096]


def test_no_limit_is_enough(monkeypatch):
    no_limit = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (no_limit, no_limit))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("it is not to be changed"))
    open_files.allow(10_000_000)
