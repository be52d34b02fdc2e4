"""`softprompt doctor` says what is installed, how it would run, and whether it works."""

from __future__ import annotations

import os
import platform
import sys
import textwrap
from typing import Annotated, Any

import typer

from .._system.installation import dependencies, extras
from .._system.version import version
from .output import Json, Reply, log, size, table

#: Variables of the environment that change how a run computes or where it writes.
VARIABLES = (
    *(
        "SOFTPROMPT_CACHE",
        "SOFTPROMPT_VERBOSE",
        "XDG_CACHE_HOME",
        "HF_HOME",
        "HF_HUB_CACHE",
        "HF_HUB_OFFLINE",
    ),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "WORLD_SIZE"),
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "TOKENIZERS_PARALLELISM", "NO_COLOR"),
)
#: Variables whose values are secrets: only whether they are set is shown.
SECRETS = ("HF_TOKEN", "SOFTPROMPT_VLLM_KEY", "WANDB_API_KEY")


def doctor(
    no_test: Annotated[bool, typer.Option("--no-test", help="Leave out the self-test.")] = False,
    json: Json = False,
) -> Reply:
    """Check the installation, and print a block for a bug report.

    It shows what is installed and which extras are missing, precision and threads with the reason, the
    caches, and a self-test of some seconds: a tiny model is trained and answers. The exit code is 1 where
    something is broken; a missing extra is not.

    \b
    Example:
      softprompt doctor
      softprompt doctor --json
    """
    problems: list[str] = []
    data: dict[str, Any] = {"softprompt": version(), **_machine()}
    data["packages"], data["extras"] = _packages(problems), _extras()
    data["running"] = _running(problems)
    data["caches"] = _caches(problems)
    data["environment"] = _environment()
    data["self_test"] = None
    if not no_test and "error" not in data["running"]:
        from .self_test import self_test

        log("self-test: a tiny model is trained and answers …")
        data["self_test"] = self_test()
        problems += [f"self-test, {r['name']}: {r['seen']}" for r in data["self_test"] if not r["passed"]]
    data["problems"] = problems
    return Reply(data, _text(data), code=1 if problems else 0)


def _machine() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "installed_in": _short(sys.prefix),
    }


def _short(path: object) -> str:
    """Return the path with ~ for the home folder, whose name is often a person's."""
    text, home = str(path), os.path.expanduser("~")
    return "~" + text[len(home) :] if home != "/" and text.startswith(home) else text


def _packages(problems: list[str]) -> dict[str, dict[str, Any]]:
    needs = dependencies()
    if not needs:
        problems.append("softprompt itself is not installed, so its dependencies are not known")
    problems += [str(need) for need in needs if not need.fits]
    return {n.name: {"installed": n.installed, "wanted": n.wanted, "fits": n.fits} for n in needs}


def _extras() -> dict[str, dict[str, Any]]:
    return {
        extra.name: {
            "installed": not extra.missing,
            "missing": [str(need) for need in extra.missing],
            "command": extra.command,
        }
        for extra in extras()
    }


def _running(problems: list[str]) -> dict[str, Any]:
    """Say how a run computes here. torch is imported, which may fail in an installation that is broken."""
    try:
        import torch

        from .._system.memory import free_memory
        from ..lm.precision import pick_dtype

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        device = "cuda" if gpus else "cpu"
        dtype, why = pick_dtype(device)
        threads, why_threads = _threads()
        return {
            "torch": torch.__version__,
            "device": device,
            "gpus": gpus,
            "precision": {"dtype": dtype, "why": why},
            "threads": {"number": threads, "why": why_threads},
            "free_memory": free_memory(),
            "free_gpu_memory": [free_memory(f"cuda:{i}") for i in range(len(gpus))],
        }
    except Exception as error:  # a broken library may raise anything, and this is where it is reported
        line = f"{type(error).__name__}: {str(error)[:300]}"
        problems.append(f"torch cannot be used: {line}")
        return {"error": line}


def _threads() -> tuple[int, str]:
    from .._system import threads

    number = threads.use()
    if threads.from_environment() is not None:
        names = [name for name in threads.VARIABLES if os.environ.get(name)]
        return number, f"{names[0]} says so"
    return number, "physical cores that this process may use, within its control group's share of time"


def _caches(problems: list[str]) -> list[dict[str, Any]]:
    from .cache import where

    try:
        return [{**place, "path": _short(place["path"])} for place in where()]
    except Exception as error:
        problems.append(f"the caches cannot be read: {error}")
        return []


def _environment() -> dict[str, str]:
    shown = {name: _short(os.environ[name]) for name in VARIABLES if name in os.environ}
    return shown | {name: "(set)" for name in SECRETS if os.environ.get(name)}


def _text(data: dict[str, Any]) -> str:
    missing = {name: extra for name, extra in data["extras"].items() if not extra["installed"]}
    parts = ["Copy what follows into a bug report.", "", "```", *_report(data), "```"]
    if missing:
        rows = [(extra["command"], ", ".join(extra["missing"])) for extra in missing.values()]
        parts += ["", "Extras that are not installed:", table(rows)]
    if data["problems"]:
        parts += ["", "Problems:", *(f"  {problem}" for problem in data["problems"])]
        parts += ["  fix: pip install --upgrade --force-reinstall softprompt, in a new virtual environment"]
    else:
        parts += [
            "",
            "Nothing is broken." if data["self_test"] else "Nothing is broken; no self-test was run.",
        ]
    return "\n".join(parts)


def _report(data: dict[str, Any]) -> list[str]:
    running = data["running"]
    rows = [
        ("softprompt", data["softprompt"]),
        ("python", f"{data['python']} in {data['installed_in']}"),
        ("system", data["system"]),
        ("packages", ", ".join(f"{name} {p['installed']}" for name, p in data["packages"].items())),
        ("extras", ", ".join(name for name, extra in data["extras"].items() if extra["installed"]) or "none"),
    ]
    if "error" in running:
        rows.append(("torch", running["error"]))
    else:
        rows += [
            ("device", ", ".join(running["gpus"]) or "CPU"),
            ("precision", f"{running['precision']['dtype']}: {running['precision']['why']}"),
            ("threads", f"{running['threads']['number']}: {running['threads']['why']}"),
            ("free memory", size(running["free_memory"])),
        ]
    rows += [("cache", f"{p['what']}: {size(p['bytes'])}") for p in data["caches"] if p["bytes"] is not None]
    rows += [("variable", f"{name}={value}") for name, value in data["environment"].items()]
    for result in data["self_test"] or ():
        verdict = "passed" if result["passed"] else "FAILED"
        rows.append(
            ("self-test", f"{verdict}: {result['name']}, {result['seconds']:.1f} s: {result['seen']}")
        )
    width = max(len(title) for title, _ in rows) + 2
    lines = [textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False) for _, text in rows]
    return [
        f"{title if first else '':{width}}{line}"
        for (title, _), parts in zip(rows, lines, strict=True)
        for first, line in zip([True, *[False] * len(parts)], parts, strict=False)
    ]
