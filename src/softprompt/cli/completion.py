"""A shell completes commands and options; the user names the shell, since guesses by its process fail.

Typer's own options take the shell from the parent process, and ignore one that is named: in a Makefile, or
under `sh`, they give an error or another shell's script.
"""

from __future__ import annotations

from enum import Enum

import typer
from typer import completion as typers  # its names are imported there, not listed

# pyright: reportPrivateImportUsage=false

PROGRAM, VARIABLE = "softprompt", "_SOFTPROMPT_COMPLETE"


class Shell(str, Enum):
    """The shells that have a script."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"
    powershell = "powershell"
    pwsh = "pwsh"


typers.completion_init()  # for the requests that a shell with the script makes


def print_script(shell: Shell | None) -> None:
    """Print the script that a shell reads, and end the process."""
    if shell is not None:
        typer.echo(typers.get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell.value))
        raise typer.Exit


def install_script(shell: Shell | None) -> None:
    """Write the script into the user's folder, name its file, and end the process."""
    if shell is not None:
        _, path = typers.install(shell=shell.value, prog_name=PROGRAM, complete_var=VARIABLE)
        typer.echo(f"{path} completes {PROGRAM} in {shell.value} from its next start on")
        raise typer.Exit
