"""The command's options are defined here, without models, so that help is fast."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True, slots=True)
class Options:
    """Holds sizes and budgets. Every field is an option of the command."""

    data: Path = field(metadata=_help("folder that holds sst2/, ag_news/ and boolq/"))
    model: str = field(default="smollm2", metadata=_help("alias or folder of the base model"))
    out: Path = field(
        default=Path("runs/training"), metadata=_help("where time-to-accuracy keeps what it has finished")
    )
    threads: int = field(default=0, metadata=_help("of torch; 0: its default"))
    dtypes: tuple[str, ...] = field(
        default=("float32", "bfloat16"), metadata=_help("precisions, each measured separately")
    )
    sets: tuple[str, ...] = field(
        default=("sst2", "ag_news"), metadata=_help("of same-maths, prefix, memory")
    )
    blocks: int = field(default=3, metadata=_help("times that each side has its turn; medians are compared"))
    steps: int = field(default=12, metadata=_help("of a block"))
    batch: int = field(default=16, metadata=_help("rows a step"))
    inputs: int = field(default=512, metadata=_help("cached-step: tokens of an input"))
    input_rows: int = field(default=8, metadata=_help("cached-step: rows a step"))
    prompts: int = field(default=32, metadata=_help("many: prompts that are trained"))
    prompt_rows: tuple[int, ...] = field(
        default=(1, 4, 8, 128), metadata=_help("many: rows a step of each prompt")
    )
    prompt_steps: int = field(default=3, metadata=_help("many: steps of each prompt in a block"))
    wide: tuple[int, ...] = field(
        default=(32, 128), metadata=_help("flops: rows and tokens of the larger step")
    )
    passes: tuple[int, ...] = field(
        default=(128, 256, 512, 1024, 4096), metadata=_help("passes: positions a pass")
    )
    lengths: tuple[int, ...] = field(
        default=(32, 128, 512, 1024, 2048, 4096), metadata=_help("growth: tokens of an input")
    )
    race_dtypes: tuple[str, ...] = field(
        default=("bfloat16",), metadata=_help("time-to-accuracy: precisions")
    )
    target: float = field(default=0.85, metadata=_help("time-to-accuracy: where the clock stops"))
    train_rows: int = field(default=1000, metadata=_help("time-to-accuracy: rows to train on"))
    dev_rows: int = field(default=400, metadata=_help("time-to-accuracy: rows that accuracy is measured on"))
    every: int = field(default=4, metadata=_help("time-to-accuracy: steps between two evaluations"))
    rates: tuple[float, ...] = field(
        default=(1e-3, 3e-3, 1e-2, 3e-2), metadata=_help("time-to-accuracy: searched for PEFT")
    )
    search_steps: int = field(default=120, metadata=_help("time-to-accuracy: of a run of PEFT's"))
    give_up: float = field(
        default=400.0, metadata=_help("time-to-accuracy: seconds of training after which a run has failed")
    )
    seeds: tuple[int, ...] = field(default=(0, 1, 2), metadata=_help("time-to-accuracy: runs of each side"))

    @classmethod
    def of(cls, args: argparse.Namespace) -> Options:
        """Return the options among parsed arguments."""
        given = {f.name: getattr(args, f.name) for f in fields(cls)}
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})

    def to_json(self) -> dict[str, Any]:
        """Return plain values; `of_json` reads them."""
        return {name: str(v) if isinstance(v, Path) else v for name, v in asdict(self).items()}

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> Options:
        """Read the output of `to_json`."""
        listed = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**listed | {"data": Path(values["data"]), "out": Path(values["out"])})

    def in_short(self, model: Path, data: Path) -> Options:
        """Return the smallest options that run every measure, on a tiny model."""
        return replace(
            self,
            data=data,
            model=str(model),
            out=data / "out",
            dtypes=("float32",),
            race_dtypes=("float32",),
            sets=("sst2",),
            blocks=1,
            steps=2,
            batch=4,
            inputs=48,
            input_rows=2,
            prompts=3,
            prompt_rows=(2,),
            prompt_steps=2,
            wide=(4, 24),
            lengths=(8, 32),
            passes=(64, 4096),
            target=0.2,
            train_rows=16,
            dev_rows=16,
            every=1,
            rates=(1e-3, 1e-2),
            search_steps=2,
            seeds=(0,),
        )


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add every field of `Options` as an option."""
    for f in fields(Options):
        default = None if f.default is MISSING else f.default
        many = isinstance(default, tuple)
        kind = Path if default is None else type(default[0] if many else default)
        parser.add_argument(
            f"--{f.name.replace('_', '-')}",
            type=kind,
            nargs="+" if many else None,
            default=default,
            metavar=f.name.split("_")[-1].upper(),
            help=f.metadata["help"] + (f" ({_shown(default)})" if default is not None else ""),
        )


def _shown(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
