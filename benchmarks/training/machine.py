"""The machine, the versions and the date are printed with every result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import date
from pathlib import Path


def where() -> str:
    """Return the processor, cores, threads, versions and date in one line."""
    import torch

    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers")]
    try:
        versions.append(f"peft {importlib.metadata.version('peft')}")
    except importlib.metadata.PackageNotFoundError:
        versions.append("without peft")
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return (
        f"{processor()}, {cores}; Python {platform.python_version()}, {', '.join(versions)}; {date.today()}"
    )


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
