"""The typer application wraps every command, which is a function in its own module.

A command computes and returns a `Reply`; stdout, stderr and the exit code are handled here, once.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .._system.characters import check_whole, texts_in
from .._system.display import Display
from .._system.paths import shown, unusable
from .._system.quiet import own_process
from .._system.threads import wait_quietly
from ..errors import IN_SHELL, SoftPromptError
from . import (
    cache,
    check,
    choose,
    compare,
    compile,
    compose,
    demo,
    distill,
    doctor,
    embed,
    evaluate,
    export,
    generate,
    import_,
    init,
    inspect,
    methods,
    models,
    play,
    push,
    report,
    search,
    serve,
    shell,
    tune,
)
from .completion import Shell, install_script, print_script
from .output import Reply, log, show, show_error
from .verbosity import with_verbose

NOT_UTF8 = "write it in UTF-8, or put it into a file of UTF-8"
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(requested: bool) -> None:
    if requested:
        from .._system.version import version

        typer.echo(f"softprompt {version()}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    install_completion: Annotated[
        Shell | None,
        typer.Option(callback=install_script, is_eager=True, help="Let a shell complete commands."),
    ] = None,
    show_completion: Annotated[
        Shell | None,
        typer.Option(callback=print_script, is_eager=True, help="Print the script of a shell that does so."),
    ] = None,
) -> None:
    """Tune a prompt or a prefix for a frozen language model.

    \b
    Start:  softprompt init                 write a first recipe, and rows to replace with yours
            softprompt choose --rows FILE   which method suits your rows, and why
            softprompt check RECIPE         what a run would do and cost
            softprompt tune RECIPE          train it
            softprompt distill --system F   turn a text that every request repeats into vectors
            softprompt search RECIPE        train many settings of it in one run
            softprompt compare RECIPE       prompt or prefix? compare methods on your rows
            softprompt play                 try tuned prompts in the browser
            softprompt demo                 see all of it on real data, in ten minutes

    Exit codes: 0 success, 1 a mistake that you can fix, 2 wrong usage, 130 interrupted (state saved).
    """


def command(
    function: Callable[..., Reply], name: str, *, prints: bool = False, cls: type[TyperCommand] | None = None
) -> None:
    """Register a command. Its docstring is its help; one that `prints` writes its JSON itself."""

    @functools.wraps(function)
    def run(**arguments: Any) -> None:
        raise typer.Exit(_run(function, arguments, prints))

    app.command(name, cls=cls)(with_verbose(run))


def _run(function: Callable[..., Reply], arguments: dict[str, Any], prints: bool) -> int:
    as_json = bool(arguments.get("json"))
    # what a library prints must not be mixed with the JSON object
    aside = contextlib.redirect_stdout(sys.stderr) if as_json and not prints else contextlib.nullcontext()
    own_process()
    _print_notes()
    if function not in (serve.serve, play.play):  # a server is assumed to have the machine to itself
        wait_quietly()
    try:
        with aside, Display(), _for_a_shell():
            for name, text in texts_in(arguments):
                check_whole(text, f"the argument {name.upper()}", NOT_UTF8)
            for name, value in arguments.items():
                if isinstance(value, Path) and (why := unusable(value)):
                    problem = f"the argument {name.upper()} names no file: '{shown(value)}'"
                    raise SoftPromptError(problem, why, "give a shorter name")
            reply = function(**arguments)
    except SoftPromptError as error:
        return show_error(error, as_json)
    except KeyboardInterrupt:
        log("interrupted")
        if as_json:
            show(Reply({"interrupted": True}), as_json)
        return 130
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
            raise
        return show_error(_out_of_memory(error), as_json)
    show(reply, as_json)
    return reply.code


@contextlib.contextmanager
def _for_a_shell() -> Iterator[None]:
    """Errors name options as a shell writes them."""
    token = IN_SHELL.set(True)
    try:
        yield
    finally:
        IN_SHELL.reset(token)


def _out_of_memory(error: BaseException) -> SoftPromptError:
    return SoftPromptError(
        "memory ran out",
        why=str(error).strip().splitlines()[0] if str(error).strip() else "the system gave no more",
        fix="a smaller train.batch_size or data.max_input_tokens, or train.gradient_checkpointing=true",
    )


class _ToStandardError(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log(record.getMessage())


def _print_notes() -> None:
    """Send notes of the library where the command's lines go."""
    from .._system.notes import logger

    if not any(isinstance(handler, _ToStandardError) for handler in logger.handlers):
        logger.addHandler(_ToStandardError())
        logger.propagate = False


command(init.init, "init")
command(choose.choose, "choose")
command(check.check, "check")
command(tune.tune, "tune")
command(search.search, "search")
command(compare.compare, "compare")
command(evaluate.evaluate, "eval")
command(distill.distill, "distill")
command(generate.generate, "generate", cls=generate.DashedText)
command(embed.embed, "embed", cls=generate.DashedText)
command(inspect.inspect, "inspect")
command(compose.compose, "compose")
command(report.report, "report")
command(compile.compile_, "compile")
command(export.export, "export")
command(import_.import_, "import")
command(push.push, "push")
command(methods.methods, "methods")
command(models.models, "models")
command(serve.serve, "serve", prints=True)
command(play.play, "play", prints=True)
command(demo.demo, "demo", prints=True)
command(shell.shell, "shell")
command(doctor.doctor, "doctor")
command(cache.cache, "cache")
