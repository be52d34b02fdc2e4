"""`-v` on every command: the libraries' own warnings and loading bars are shown, in its workers too."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from .._system.quiet import VERBOSE

Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Show the libraries' own warnings and loading bars, and what caused an error."
    ),
]


def with_verbose(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command with one more option, which is there before any library is imported."""

    @functools.wraps(function)
    def run(verbose: bool, **arguments: Any) -> Any:
        if verbose:
            os.environ[VERBOSE] = "1"
        return function(**arguments)

    own = inspect.signature(function, eval_str=True)
    asked = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose)
    run.__annotations__ = {**function.__annotations__, "verbose": Verbose}
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), asked])  # type: ignore[attr-defined]
    return run
