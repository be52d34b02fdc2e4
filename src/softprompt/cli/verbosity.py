"""Every command has `-v`, which shows the libraries' warnings and loading bars, also of worker processes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from .._system.environment import variable
from .._system.quiet import VERBOSE

Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Show the libraries' warnings and loading bars, and what caused an error."
    ),
]


def with_verbose(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option to a command; it takes effect before any library is imported, for this command alone."""

    @functools.wraps(function)
    def run(verbose: bool, **arguments: Any) -> Any:
        with variable(VERBOSE, "1" if verbose else None):
            return function(**arguments)

    signature = inspect.signature(function, eval_str=True)
    option = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose)
    run.__annotations__ = {**function.__annotations__, "verbose": Verbose}
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    return run
