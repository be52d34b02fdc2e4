"""A server is started on a bound socket, with the engine in the process or with vLLM."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SoftPromptError
from .output import log

if TYPE_CHECKING:
    import socket

    from ..serve.http.server import Server

Prepare = Callable[["Server"], Callable[[], None]]


def announce(text: str) -> None:
    """Write a line for the person who starts the server; one object where the log has JSON."""
    from ..serve.http import logs

    if logs.is_json():
        logging.getLogger("softprompt.serve").info("%s", text)
    else:
        log(text)


def run(
    folder: Path,
    model: str | None,
    bound: socket.socket,
    ready: Callable[[str, str], None],
    *,
    trials: bool = False,
    keys: Path | None = None,
    rows: int = 64,
    queue: int = 256,
    drain: float = 30.0,
    prompts_bytes: int = 10**9,
    dtype: str = "auto",
    weights: str | None = None,
    trust_remote_code: bool = False,
    device_map: str | None = None,
    reloading: Prepare | None = None,
    **options: Any,
) -> None:
    """Serve on a bound socket until a signal arrives. `ready` gets the address and the base's name.

    `model` None: the base that most of the folder's prompts name. `options` are those of `create_app`.
    """
    from .._system import threads
    from ..artifacts.hub.download import folder_of
    from ..lm.causal import CausalLM
    from ..lm.loading import load_saved
    from ..serve import bases
    from ..serve.embedding_engine import EmbeddingEngine
    from ..serve.engine import Engine
    from ..serve.http import create_app
    from ..serve.http.keys import Keys
    from ..serve.http.server import Server, address_of
    from ..serve.names import Names, check_base
    from ..serve.registry import Registry

    fetched, reference = folder_of(folder)
    if reference is not None:
        folder = Path(str(reference))  # the commit: what is served stays the same while the server runs
    elif not fetched.is_dir():
        raise SoftPromptError(
            f"no folder {folder}", fix="give a folder of tuned prompts; softprompt demo makes runs/demo"
        )
    known = None if keys is None else Keys(keys)
    threads.use()
    survey = bases.survey(folder, trials=trials)
    model = model or survey.base or "smollm2"
    name = bases.called(model)
    check_base(Names(folder, trials=trials).holds, name)  # before a model is loaded
    announce(f"loading {model} …")
    loading: dict[str, Any] = {"dtype": dtype, "weights": weights, "device_map": device_map}
    loading |= {"trust_remote_code": trust_remote_code}
    lm = load_saved(survey.record_of(model), **loading)
    if not isinstance(lm, CausalLM) and lm.answers != "pooled":
        raise SoftPromptError(
            f"'{model}' cannot be served",
            why="only decoder-only models run requests of different prompts together",
            fix="softprompt generate runs prompts of any model",
        )
    for text in survey.notes(lm):
        announce(f"note: {text}")
    registry = Registry(folder, lm, max_bytes=prompts_bytes, trials=trials)
    if lm.answers == "pooled":
        engine: Any = EmbeddingEngine(lm, registry, queue=rows + queue)
    else:
        assert isinstance(lm, CausalLM)  # others were refused
        engine = Engine(lm, registry, max_rows=rows, queue=queue)
    app = create_app(
        engine,
        registry,
        model_name=name,
        tokenizer=lm.tokenizer,
        context=lm.spec.context,
        keys=known,
        **options,
    )
    engine.start()
    server = Server(app, drain=drain, ready=lambda: ready(address_of(bound), name))
    run_server(server, bound, reloading)


def run_gateway(
    folder: Path,
    model: str | None,
    url: str,
    bound: socket.socket,
    ready: Callable[[str, str], None],
    *,
    keys: Path | None,
    drain: float,
    reloading: Prepare | None = None,
    **options: Any,
) -> None:
    """Serve a folder of compiled prompts with vLLM at `url` as the engine; see `run`."""
    with needed("gateway"):
        from ..artifacts.interop.kv_cache.folder import Folder
        from ..lm.loading import load_tokenizer
        from ..serve.bases import LOOKED_AT, called
        from ..serve.gateway.gateway import create_gateway
        from ..serve.http.keys import Keys
        from ..serve.http.server import Server, address_of

    known = None if keys is None else Keys(keys)
    secret = os.environ.get("SOFTPROMPT_VLLM_KEY")
    base = Folder(folder).base()  # an error of the folder comes before one of the tokenizer
    model = model or base.name
    name, tokenizer = called(model), load_tokenizer(model)
    app = create_gateway(folder, url, tokenizer, model=model, name=name, key=secret, keys=known, **options)
    count = len(list(itertools.islice(app.state.service.registry.names(), LOOKED_AT + 1)))
    announce(
        f"note: {'more than ' * (count > LOOKED_AT)}{min(count, LOOKED_AT)} compiled prompts in {folder}"
    )
    server = Server(app, drain=drain, ready=lambda: ready(address_of(bound), name))
    run_server(server, bound, reloading)


def run_server(server: Server, bound: socket.socket, reloading: Prepare | None) -> None:
    """Run a server until a signal arrives; `reloading` makes what SIGHUP does."""
    if reloading is not None:
        server.reload = reloading(server)
    server.run(sockets=[bound])


@contextlib.contextmanager
def needed(extra: str = "serve"):
    """Raise an error that says what to install where the server's packages are missing."""
    try:
        yield
    except ImportError as error:
        raise SoftPromptError(
            "the server's packages are not installed",
            why=str(error),
            fix=f"pip install 'softprompt[{extra}]'",
        ) from None
