"""`softprompt generate` answers one input, a file of inputs, or standard input."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from .._system.progress import track
from ..errors import SoftPromptError
from .opening import (
    ArtifactFolder,
    DeviceMap,
    ModelName,
    OtherBase,
    Plain,
    PromptName,
    TrustCode,
    check_prompt,
    inputs_of,
    open_artifact,
)
from .output import Json, Reply, log

if TYPE_CHECKING:
    from ..tuned import Tuned

ROWS_AT_ONCE = 64  # answers are printed after so many


class DashedText(TyperCommand):
    """A command whose text may begin with a dash, as in `-5 degrees`: the error says how to write it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, list(args))
        except Exception as error:  # of the click that typer contains, or of an installed one
            if name := getattr(error, "option_name", None):
                dashed = next((arg for arg in args if arg.startswith(name)), name)
                error.message += f'. If it is the text, write it behind "--": -- {shlex.quote(dashed)}'  # type: ignore
            raise


def generate(
    artifact: ArtifactFolder,
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="The input.", show_default=False)
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="Rows (.jsonl, .csv, …), a line each (.txt), or - ."),
    ] = None,
    prompt: PromptName = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, metavar="N", help="Longest answer, in tokens.")
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", min=0.0, metavar="T", help="0 takes the likeliest token; above 0 samples."
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the sampling.")] = 0,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="NAME=VALUE", help="A generation option of transformers: num_beams=4."
        ),
    ] = None,
    checkpoint_settings: Annotated[
        bool,
        typer.Option(
            "--checkpoint-settings", help="Use the generation settings of the base model's checkpoint."
        ),
    ] = False,
    plain: Plain = False,
    model: ModelName = None,
    other_base: OtherBase = False,
    trust_remote_code: TrustCode = False,
    device_map: DeviceMap = None,
    json: Json = False,
) -> Reply:
    """Answer an input, or a file of them.

    Answers to a file, or to standard input, are written one a line. A classification or choice prompt
    answers with the likeliest label or choice. Write -- ahead of a text that begins with a dash.

    \b
    Example:
      softprompt generate runs/prompt "what a film!"
      softprompt generate runs/prompt -- "-5 degrees"
      softprompt generate runs/chat "Tell me about cats" --prompt joke
      softprompt generate runs/prompt --file inputs.txt > answers.txt
    """
    if (text is None) == (file is None):
        raise typer.BadParameter("give one TEXT, or --file FILE (--file - reads standard input)")
    options = _options(max_new_tokens, temperature, option)
    from ..artifacts import artifact as artifacts
    from ..config.load import recipe_from_dict
    from ..data.task import WRITTEN
    from ..evaluation.answering import checked

    opened = artifacts.load(artifact)
    lines: Sequence[Any] = [text] if file is None else read_inputs(file)
    rows: Sequence[Any] = [line for line in lines if line is not None]
    if len(rows) < len(lines):
        log(f"note: blank lines are answered by blank lines ({len(lines) - len(rows)})")
    check_prompt(opened, rows, prompt)
    checked(options, recipe_from_dict(opened.manifest["recipe"]).task.kind)
    places = {"trust": trust_remote_code, "device_map": device_map}
    tuned = open_artifact(opened, model, other_base, plain, **places)
    if checkpoint_settings:
        options = tuned.lm.inherited | options
    import torch

    torch.manual_seed(seed)
    rows, prompt = inputs_of(rows, tuned, prompt)
    if text is not None and not json and sys.stdout.isatty() and tuned.encoder.kind in WRITTEN:
        _stream(tuned, text, prompt, options)
        return Reply({})
    answers: list[str] = []  # one for each line
    for part in track(list(_parts(rows)), "answering, batch"):
        before = len(answers)
        for answer in tuned.generate(list(part), prompt=prompt, **options):
            answers += [*_blank(lines, len(answers)), answer]
        answers += _blank(lines, len(answers))
        if file is not None and not json:
            for answer in answers[before:]:
                print(_one_line(answer), flush=True)
    if json:
        named = {} if prompt is None else {"prompt": prompt}
        return Reply({"artifact": str(tuned.artifact), **named, "outputs": answers})
    return Reply({}, answers[0] if file is None else None)


def _blank(lines: Sequence[Any], start: int) -> list[str]:
    """Return an empty answer for each blank line from `start` on, up to the next input."""
    return [""] * next((i for i, line in enumerate(lines[start:]) if line is not None), len(lines) - start)


def read_inputs(file: str) -> Sequence[Any]:
    """Read rows, or lines of text with None where a line is blank."""
    from .._system.paths import COMPRESSED, expanded, kind_of
    from ..data.json_files import lines_of
    from ..data.sources import read_row_lines, read_rows, read_standard_rows
    from ..data.text_files import check_regular, read_standard_input, read_text

    if file == "-":
        content = read_standard_input()
        if re.match(r"\s*(\{|\[\s*\{)", content):
            return read_standard_rows(content, "test")
        return _filled(lines_of(content), "standard input")
    path = Path(expanded(file))
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:] if suffix.lower() not in COMPRESSED]
    if suffixes[-1:] in ([".jsonl"], [".ndjson"]) and path.is_file():
        return read_row_lines(path)
    if suffixes[-1:] != [".txt"]:
        return read_rows(file, split="test")
    if kind_of(path, "the inputs") == "missing":
        raise SoftPromptError(f"cannot read '{file}'", why="there is no such file")
    check_regular(path, "file of inputs")
    try:
        content = read_text(path, may_be_blank=True)
    except OSError as error:
        raise SoftPromptError(f"cannot read '{file}'", why=error.strerror or str(error)) from None
    return _filled(lines_of(content), file)


def _filled(lines: Sequence[str | None], name: str) -> Sequence[str | None]:
    """Return the lines. Raises SoftPromptError where all are blank."""
    if all(line is None for line in lines):
        raise SoftPromptError(f"{name}: no inputs", why="it is empty", fix="write one input a line")
    return lines


def _options(max_new_tokens: int | None, temperature: float, more: Sequence[str] | None) -> dict[str, Any]:
    import yaml

    from ..config.yaml import read_value

    options: dict[str, Any] = {}
    for text in more or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"--option is NAME=VALUE, not {text!r}")
        try:
            options[name.strip()] = read_value(value, ())
        except yaml.YAMLError:
            options[name.strip()] = value
    if max_new_tokens is not None:
        options["max_new_tokens"] = max_new_tokens
    if temperature > 0:
        options |= {"do_sample": True, "temperature": temperature}
    return options


def _stream(tuned: Tuned, text: str, prompt: str | None, options: dict[str, Any]) -> None:
    """Write words to the terminal as they are generated."""
    from transformers import TextStreamer

    class Words(TextStreamer):
        begun = False

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            text = text if self.begun else text.lstrip()  # most answers begin with a space
            self.begun = self.begun or bool(text)
            super().on_finalized_text(text, stream_end)

    streamer = Words(tuned.lm.tokenizer, skip_prompt=True, skip_special_tokens=True)  # type: ignore[arg-type]
    tuned.generate(text, prompt=prompt, streamer=streamer, **options)


def _parts(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE]


def _one_line(answer: str) -> str:
    return answer.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
