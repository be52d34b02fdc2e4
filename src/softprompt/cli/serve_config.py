"""A YAML file holds the options of `softprompt serve`; it is checked, and read again on SIGHUP."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typer import Context

from .._system.files import read_bytes
from .._system.paths import expanded, kind_of
from ..config.mistakes import Mistakes
from ..config.yaml import Reading
from ..errors import SoftPromptError, nearest

log = logging.getLogger("softprompt.serve")
MOST_BYTES = 200_000
PATHS = ("prompts", "keys")
#: Options that a running server takes over. All others need a restart.
SAFE = ("allowed_host", "drain", "keys", "log_format", "max_tokens", "timeout")
Positive = Annotated[int, Field(ge=1)]


class ServeConfig(BaseModel):
    """Every option of `softprompt serve` has a field of its name, with `_` for `-`, and its default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    prompts: str | None = None
    model: str | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    keys: str | None = None
    no_keys: bool = False
    allowed_host: list[str] = []
    cors_origin: list[str] = []
    control_tokens: Literal["allow", "escape", "refuse"] = "allow"
    rows: Positive = 64
    queue: Positive = 256
    max_tokens: Positive = 1024
    timeout: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 300
    drain: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30
    prompts_mb: Positive = 1000
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    weights: Literal["auto", "float32", "bfloat16", "int8"] | None = None
    trust_remote_code: bool = False
    device_map: str | None = None
    trials: bool = False
    engine: Literal["embedded", "vllm"] = "embedded"
    vllm_url: str = "http://127.0.0.1:8001"
    log_format: Literal["text", "json"] = "text"
    traces: bool = False


def read_config(path: Path) -> dict[str, Any]:
    """Return the options that the file has; relative paths in it belong to its folder.

    Raises SoftPromptError with every mistake, each with its line.
    """
    tree, mistakes = _tree(path)
    config = ServeConfig()
    try:
        config = ServeConfig.model_validate(tree)
    except ValidationError as error:
        for detail in error.errors():
            mistakes.add(mistakes.origin(detail["loc"]), _message(detail))
    if mistakes.texts:
        raise mistakes.error()
    options = config.model_dump(include=set(tree))
    for name in PATHS:
        text = options.get(name)
        if text is not None and not text.startswith("hf:"):
            options[name] = str(path.parent / expanded(text))
    return options


def _tree(path: Path) -> tuple[dict[Any, Any], Mistakes]:
    if (kind := kind_of(path, "the file of --config")) != "file":
        why = "there is no such file" if kind == "missing" else f"it is a {kind}"
        raise SoftPromptError(f"cannot read the options in '{path}'", why, "give --config a YAML file")
    mistakes = Mistakes(str(path))
    try:
        text = read_bytes(path, MOST_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SoftPromptError(
            f"cannot read the options in '{path}'", why, "give --config a YAML file"
        ) from None
    tree = Reading(mistakes.origins, mistakes.texts).document(text, str(path))
    if not isinstance(tree, dict):
        names = ", ".join(ServeConfig.model_fields)
        raise SoftPromptError(f"{path}: options are 'name: value' lines", fix=f"names: {names}")
    return tree, mistakes


def _message(detail: Any) -> str:
    name, given = ".".join(map(str, detail["loc"])), detail.get("input")
    if detail["type"] == "extra_forbidden":
        known = list(ServeConfig.model_fields)
        guess = nearest(name, known)
        hint = f"; did you mean '{guess}'?" if guess else ""
        return f"unknown option '{name[:60]}'{hint} (known: {', '.join(known)})"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{name}: {repr(given)[:100]} is wrong: {message[:300]}"


def use_config(context: Context, path: Path | None) -> Path | None:
    """Give the parser the file's options as defaults, so that the command line has precedence.

    A mistake is reported by the command itself, which reads the file again.
    """
    if path is not None:
        try:
            options = read_config(path)
        except SoftPromptError:
            options = {}
        if "prompts" in options:
            options["folder"] = options.pop("prompts")
        context.default_map = options
    return path


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=use_config,
        help="Options from a YAML file; SIGHUP reads it again.",
    ),
]


@dataclass
class Reloading:
    """Reads the file again when it is called, and hands over the options that changed and may change.

    `fixed` are the options of the command line, by name; they have precedence. `take` gets the values of
    `SAFE` that changed, and raises SoftPromptError where one cannot be used; then nothing changes.
    """

    path: Path
    fixed: frozenset[str]
    take: Callable[[Mapping[str, Any]], None]
    before: dict[str, Any] = field(init=False)
    is_pending: bool = field(default=False, init=False)  # a signal came before there was a server

    def __post_init__(self) -> None:
        self.before = self._read()

    def _read(self) -> dict[str, Any]:
        defaults = ServeConfig().model_dump()
        return defaults | read_config(self.path)

    @contextlib.contextmanager
    def remembering(self) -> Iterator[None]:
        """Remember a SIGHUP that comes before the server handles it: it would end the process."""
        if not hasattr(signal, "SIGHUP"):
            yield
            return
        before = signal.signal(signal.SIGHUP, lambda *_: setattr(self, "is_pending", True))
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, before or signal.SIG_DFL)

    def catch_up(self) -> None:
        """Do what a SIGHUP asked for while the server was starting."""
        if self.is_pending:
            self.is_pending = False
            self()

    def __call__(self) -> None:
        """Read the file again. The log says what changed, what needs a restart, or what is wrong."""
        try:
            now = self._read()
            changed = {name: value for name, value in now.items() if value != self.before[name]}
            safe = {name: value for name, value in changed.items() if name in SAFE and name not in self.fixed}
            self.take(safe)
        except SoftPromptError as error:
            log.error("the options were not changed: %s", error.line)
            return
        shown = ", ".join(f"{name} {self.before[name]} → {value}" for name, value in safe.items())
        log.info(
            "%s was read again: %s", self.path, shown or "nothing changed that a running server takes over"
        )
        if overridden := sorted(changed.keys() & self.fixed):
            log.warning("the command line has precedence over the file: %s", ", ".join(overridden))
        if later := sorted(changed.keys() - set(SAFE) - self.fixed):
            log.warning("a restart is needed for: %s", ", ".join(later))
        # what needs a restart is compared with what runs, so that it is named until then
        self.before |= safe
