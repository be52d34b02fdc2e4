"""`softprompt serve` serves every tuned prompt under a folder, by name, over OpenAI's API."""

from __future__ import annotations

import contextlib
import json as jsonlib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import SoftPromptError, unknown
from .opening import DeviceMap, TrustCode
from .output import Json, Reply
from .serve_config import SAFE, ConfigFile, Reloading, read_config
from .serving import Prepare, announce, needed, run, run_gateway


class ControlTokens(str, Enum):
    """The ways in which control tokens in a client's text are read."""

    allow = "allow"
    escape = "escape"
    refuse = "refuse"


class LogFormat(str, Enum):
    """The log has one of these forms."""

    text = "text"
    json = "json"


class EngineName(str, Enum):
    """The engines that compute answers."""

    embedded = "embedded"
    vllm = "vllm"


BaseModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="The base model. Default: the one that most prompts name, or smollm2.",
        show_default=False,
    ),
]
Trials = Annotated[bool, typer.Option("--trials", help="Serve the trials of comparisons too.")]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="NAME",
        help="auto, bfloat16, or float32, in which answers do not depend on their neighbours.",
    ),
]


Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FORM",
        help="auto, float32 or bfloat16 (that form alone), or int8: less memory, other answers.",
        show_default="those of training",
    ),
]
FORMS = ("auto", "float32", "bfloat16", "int8")


def serve(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="PROMPTS_DIR",
            help="A folder of tuned prompts, one prompt, or hf:ID[@REVISION].",
            show_default=False,
        ),
    ] = None,
    model: BaseModel = None,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, metavar="N", help="0: any.")] = 8000,
    keys: Annotated[
        Path | None, typer.Option("--keys", metavar="FILE", help="Who may use which prompts (YAML).")
    ] = None,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Serve without keys on an address beyond loopback.")
    ] = False,
    new_key: Annotated[
        str | None,
        typer.Option("--new-key", metavar="NAME", help="Print a new key and its entry; start no server."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option("--allowed-host", metavar="NAME", help="Answer to this host name too.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option("--cors-origin", metavar="URL", help="Let web pages of this origin call it; * is any."),
    ] = None,
    control_tokens: Annotated[
        ControlTokens,
        typer.Option(
            "--control-tokens", help="In a client's text: read as in training, as text, or refused."
        ),
    ] = ControlTokens.allow,
    rows: Annotated[int, typer.Option("--rows", min=1, metavar="N", help="Answers computed at once.")] = 64,
    queue: Annotated[int, typer.Option("--queue", min=1, metavar="N", help="Answers that may wait.")] = 256,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, metavar="N", help="Longest answer that may be requested.")
    ] = 1024,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, metavar="S", help="Seconds that an answer may take.")
    ] = 300,
    drain: Annotated[
        float, typer.Option("--drain", min=0, metavar="S", help="Seconds to finish answers at shutdown.")
    ] = 30,
    prompts_mb: Annotated[
        int, typer.Option("--prompts-mb", min=1, metavar="MB", help="Memory for loaded prompts.")
    ] = 1000,
    dtype: Dtype = "auto",
    weights: Weights = None,
    trust_remote_code: TrustCode = False,
    device_map: DeviceMap = None,
    trials: Trials = False,
    engine: Annotated[
        EngineName, typer.Option("--engine", help="vllm: PROMPTS_DIR is what `softprompt compile` wrote.")
    ] = EngineName.embedded,
    vllm_url: Annotated[
        str, typer.Option("--vllm-url", metavar="URL", help="Where vLLM is; its key: $SOFTPROMPT_VLLM_KEY.")
    ] = "http://127.0.0.1:8001",
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", help="json: one object a line, and one line a request.")
    ] = LogFormat.text,
    traces: Annotated[
        bool, typer.Option("--traces", help="Send OpenTelemetry spans; its OTEL_ variables say where.")
    ] = False,
    config: ConfigFile = None,
    json: Json = False,
) -> Reply:
    """Serve tuned prompts over OpenAI's API.

    It listens on loopback; any other address needs --keys. Ctrl-C or SIGTERM ends it, once running answers
    are finished. /play is a page to try prompts on.

    \b
    Example:
      softprompt serve runs --model smollm2
      softprompt serve --new-key team-a
      softprompt serve prompts --host 0.0.0.0 --keys keys.yaml
      softprompt serve --config serve.yaml
      softprompt serve compiled --engine vllm --vllm-url http://vllm:8000
    """
    if config is not None:
        read_config(config)  # the parser has its options; a mistake in it is an error here
    if new_key is not None:
        return _fresh_key(new_key)
    if folder is None:
        raise typer.BadParameter("give the folder of tuned prompts")
    with needed():
        from ..serve.http import logs
        from ..serve.http.cors import origin
        from ..serve.http.limits import Limits
        from ..serve.http.server import is_loopback, listen
        from ..serve.http.tracing import OpenTelemetry
    if not is_loopback(host) and keys is None and not no_keys:
        raise SoftPromptError(
            f"{host} can be reached from other machines, and no keys are asked for",
            why="everyone who reaches the server could use every prompt",
            fix="--keys FILE (softprompt serve --new-key NAME makes one), or --no-keys if that is intended",
        )
    if dtype not in ("auto", "float32", "bfloat16"):
        raise unknown("dtype", dtype, ("auto", "float32", "bfloat16"))
    if weights is not None and weights not in FORMS:
        raise unknown("weights", weights, FORMS)
    limits = Limits(output_tokens=max_tokens, requests=rows + queue, seconds=timeout)
    logs.use(log_format.value)
    tracing = OpenTelemetry() if traces else None
    reloading, prepare = (None, None) if config is None else _reloading(config, host, context)
    with contextlib.ExitStack() as stack:
        bound = stack.enter_context(contextlib.closing(listen(host, port)))  # fails before a model is loaded
        if reloading is not None:
            stack.enter_context(reloading.remembering())

        def ready(url: str, name: str) -> None:
            announce(f"serving {folder} on {url}/v1, to try on {url}/play; Ctrl-C ends it")
            if json:
                print(jsonlib.dumps({"url": url, "model": name}), flush=True)
            if reloading is not None:
                reloading.catch_up()

        common: dict[str, Any] = {
            "keys": keys,
            "drain": drain,
            "limits": limits,
            "hosts": _hosts(host, allowed_host or []),
            "control_tokens": control_tokens.value,
            "cors_origins": tuple(map(origin, cors_origin or ())),
            "tracing": tracing,
            "reloading": prepare,
        }
        loading = {"--device-map": device_map, "--weights": weights}
        for name, value in loading.items():
            if engine is EngineName.vllm and value is not None:
                raise typer.BadParameter(
                    f"{name} has no effect with --engine vllm, which loads its model itself"
                )
        if engine is EngineName.vllm:
            run_gateway(folder, model, vllm_url, bound, ready, **common)
        else:
            common |= {"rows": rows, "queue": queue, "prompts_bytes": prompts_mb * 10**6, "dtype": dtype}
            common |= {"trust_remote_code": trust_remote_code, "device_map": device_map, "weights": weights}
            run(folder, model, bound, ready, trials=trials, **common)
    if tracing is not None:
        tracing.close()
    return Reply(None)


def _reloading(config: Path, host: str, context: typer.Context) -> tuple[Reloading, Prepare]:
    """Return what SIGHUP does, compared with the file as it is now, and what hands it the server."""
    sources = {name: context.get_parameter_source(name) for name in SAFE}
    fixed = frozenset(name for name, source in sources.items() if source and source.name == "COMMANDLINE")
    servers: list[Any] = []

    def take(values: Mapping[str, Any]) -> None:
        values = dict(values)
        if "allowed_host" in values:
            values["hosts"] = _hosts(host, values.pop("allowed_host"))
        servers[0].take(values)

    def prepare(server: Any) -> Reloading:
        servers.append(server)
        return reloading

    reloading = Reloading(config, fixed, take)
    return reloading, prepare


def _hosts(host: str, allowed: list[str]) -> tuple[str, ...]:
    """Return the host names that the server answers to; none means any, beyond loopback."""
    from ..serve.http.server import LOOPBACK_NAMES, is_loopback

    return (*LOOPBACK_NAMES, host, *allowed) if is_loopback(host) else tuple(allowed)


def _fresh_key(name: str) -> Reply:
    with needed():
        from ..serve.http.keys import new_key
    secret, entry = new_key(name)
    text = f"{secret}\n\nThe key, shown this once: for the client. For the file of --keys:\n\n{entry}"
    return Reply({"key": secret, "entry": entry}, text.rstrip())
