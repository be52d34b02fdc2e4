"""The machine, the versions and the date are printed with every result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import date
from pathlib import Path


def where() -> str:
    """Return the GPU if there is one, the processor, cores, threads, versions and date in one line."""
    import torch

    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers")]
    try:
        versions.append(f"peft {importlib.metadata.version('peft')}")
    except importlib.metadata.PackageNotFoundError:
        versions.append("without peft")
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    versions.insert(0, f"Python {platform.python_version()}")
    return f"{gpu()}{processor()}, {cores}; {', '.join(versions)}; {date.today()}"


def gpu() -> str:
    """Return the name and memory of the GPU, and CUDA's version, with a separator; empty without one."""
    import torch

    if not torch.cuda.is_available():
        return ""
    memory = torch.cuda.get_device_properties(0).total_memory / 1e9
    return f"{torch.cuda.get_device_name(0)} ({memory:.0f} GB, CUDA {torch.version.cuda}), "


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
