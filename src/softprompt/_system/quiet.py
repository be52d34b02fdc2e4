"""Libraries' warnings and loading bars are hidden, unless the user asks for them.

`quiet()` is for code that runs in a user's own process: it silences the libraries listed here while ours
works, and restores everything afterwards. It leaves a level or a filter that the user has set alone.
`own_process()` is for processes that are ours from the start: commands and their workers. The environment
variable `SOFTPROMPT_VERBOSE=1`, which a command's `-v` sets and its workers inherit, switches both off.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

VERBOSE = "SOFTPROMPT_VERBOSE"
#: Libraries whose loggers warn by default, by the first part of the names of their loggers and modules.
WARNERS = (
    *("transformers", "torch", "torchao", "peft", "accelerate", "tokenizers", "safetensors", "gguf"),
    *("huggingface_hub", "datasets", "bitsandbytes", "numpy", "scipy", "sklearn", "pandas", "pyarrow"),
    *("absl", "rouge_score", "sacrebleu", "nltk", "matplotlib", "pydantic", "ray", "fsspec", "multiprocess"),
    *("urllib3", "requests", "httpx", "httpcore", "filelock", "asyncio", "dill"),
)
#: Each library with the default level of its logger.
LIBRARIES = {**dict.fromkeys(WARNERS, logging.WARNING), "optuna": logging.INFO}
#: The libraries read these when they are imported.
ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DATASETS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",  # of interpreters that are started from here
}

_lock = threading.Lock()
_users = 0
_undo = contextlib.ExitStack()


def verbose() -> bool:
    """Return whether the libraries' own messages are asked for."""
    return os.environ.get(VERBOSE, "") not in ("", "0")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the libraries' warnings and loading bars inside, and restore them afterwards.

    It may be entered again inside itself, and by several threads: the last one to leave restores everything.
    """
    if verbose():
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def quietly(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that it runs in `quiet()`."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with quiet():
            return function(*args, **kwargs)

    return run


def own_process() -> None:
    """Hide them for good in a process of ours, before the libraries are imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns of every later fork
    if verbose():
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    if logging.lastResort is not None:  # prints what a library without a handler logs
        logging.lastResort.setLevel(logging.ERROR)
    _enter()


def _enter() -> None:
    global _users, _undo
    with _lock:
        if not _users:
            with contextlib.ExitStack() as stack:
                _silence_loggers(stack)
                _ignore_warnings(stack)
                _hide_bars(stack)
                _undo = stack.pop_all()
        _users += 1


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if not _users:
            _undo.close()


def _silence_loggers(stack: contextlib.ExitStack) -> None:
    """Drop the libraries' records below an error.

    Setting levels does not suffice: many libraries set their own when they are imported, which may be later.
    """
    before = logging.Logger.handle

    def handle(logger: logging.Logger, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or not _by_default(record.name):
            before(logger, record)

    logging.Logger.handle = handle  # type: ignore[method-assign]
    stack.callback(setattr, logging.Logger, "handle", before)


def _by_default(name: str) -> bool:
    """Return whether a logger belongs to one of `LIBRARIES`, with a level that nobody has changed."""
    library = name.partition(".")[0]
    return library in LIBRARIES and logging.getLogger(library).level in (logging.NOTSET, LIBRARIES[library])


def _ignore_warnings(stack: contextlib.ExitStack) -> None:
    """Ignore Python's warnings about lines of the libraries, and about our lines that call them."""
    before = warnings.filters
    warnings.filterwarnings("ignore", module=rf"({'|'.join((*LIBRARIES, 'softprompt'))})(\.|$)")
    entry = warnings.filters[0]

    def remove() -> None:
        for filters in (before, warnings.filters):  # there are two if a caller catches warnings meanwhile
            if isinstance(filters, list) and entry in filters:
                filters.remove(entry)

    stack.callback(remove)


def _hide_bars(stack: contextlib.ExitStack) -> None:
    """Hide the bars of transformers and of the hub, by the switch that transformers has for both."""
    if "transformers" not in sys.modules:
        return  # not imported yet: in a process of ours it reads ENVIRONMENT
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging as switch

    if not switch.is_progress_bar_enabled():
        return
    if are_progress_bars_disabled():
        stack.callback(disable_progress_bars)  # done last: the switch will have turned them on
    switch.disable_progress_bar()
    stack.callback(switch.enable_progress_bar)
    bar = getattr(gguf, "tqdm", None)  # one that does not obey the switch
    if bar is not None:
        stack.callback(setattr, gguf, "tqdm", bar)
        setattr(gguf, "tqdm", switch.tqdm)  # noqa: B010  (no public name)
