"""Measure what distilled texts keep: a sub-command a question.

    python -m benchmarks.distill system [--only pirate support] [--lengths 64] [--out runs/distill-bench]
    python -m benchmarks.distill keep several start beta
    python -m benchmarks.distill first-token [--url http://127.0.0.1:8000]
    python -m benchmarks.distill documents demonstrations instructions --data FOLDER [--count 3] [--seeds 3]
    python -m benchmarks.distill --short

FOLDER holds a folder for each data set, with rows as JSON Lines. A result that is in OUT/results is not
measured again, and an interrupted run resumes with the same command. Each result has the processor, the
date, the threads, the settings and its seconds. OUT/NAME.json has all results of a sub-command beside its
settings. A setting of every run is given as KEY=VALUE after --set. `--short` uses short texts and a tiny
random model: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from softprompt._system.files import write_text
from softprompt.errors import SoftPromptError
from softprompt.lm import families
from softprompt.testing.material import tiny_tokenizer

from .distillation import (
    beta,
    demonstrations,
    documents,
    first_token,
    instructions,
    keep,
    several,
    start,
    system,
)
from .distillation.bench import Bench
from .training.machine import where

MEASURES = {
    "system": system,
    "keep": keep,
    "documents": documents,
    "demonstrations": demonstrations,
    "instructions": instructions,
    "several": several,
    "start": start,
    "beta": beta,
    "first-token": first_token,
}
NEED_DATA = ("documents", "demonstrations", "instructions")
SHORT = {"steps": 2, "batch_size": 4, "max_new_tokens": 8, "dtype": "float32", "lr": 0.05}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.distill",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=", ".join(MEASURES))
    parser.add_argument("--data", type=Path, metavar="FOLDER", help=f"for {', '.join(NEED_DATA)}")
    parser.add_argument("--url", help="first-token: another server to measure, as one of vLLM")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the texts, sets or tasks to measure")
    parser.add_argument("--count", type=int, help="how many of them, the first ones")
    parser.add_argument("--seeds", type=int, help="of each run (1; of demonstrations 3)")
    parser.add_argument("--lengths", nargs="+", type=int, help="system, beta: vectors")
    parser.add_argument("--out", type=Path, default=Path("runs/distill-bench"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--threads", type=int, help="of torch; by default the physical cores")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of every run")
    parser.add_argument("--short", action="store_true", help="everything once, on a tiny model")
    args = parser.parse_args(arguments)
    names = args.measures or (list(MEASURES) if args.short else [])
    if not names or not set(names) <= set(MEASURES):
        parser.error(f"name one or more of: {', '.join(MEASURES)} (or --short for all)")
    if lacking := [name for name in names if name in NEED_DATA and args.data is None and not args.short]:
        parser.error(f"{', '.join(lacking)}: give --data FOLDER, the folder of the data sets, or --short")
    if args.threads:
        torch.set_num_threads(args.threads)
    settings: dict[str, Any] = {
        key: yaml.safe_load(value) for key, _, value in (s.partition("=") for s in args.set)
    }
    if args.seeds:
        settings["seeds"] = args.seeds
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        limits = (args.only, args.lengths, args.data, args.count, args.url)
        bench = Bench(args.out, args.model, args.short, settings, *limits)
        if args.short:
            bench.out, bench.model = Path(folder) / "out", short_model(Path(folder))
            bench.settings = {**SHORT, **settings}
        for name in names if args.only else ():
            known = MEASURES[name].names(bench)
            if unknown := set(args.only) - set(known):
                parser.error(f"{name} --only {', '.join(sorted(unknown))}: it has {', '.join(known)}")
        for name in names:
            started = time.perf_counter()
            try:
                results = MEASURES[name].measure(bench)
            except SoftPromptError as error:
                parser.error(str(error))
            failed |= not results or any("error" in result for result in results)
            place = f"{where()}; {time.perf_counter() - started:.0f} s in this call"
            saved = {"measure": name, "where": place, "settings": settings, "results": results}
            write_text(bench.out / f"{name}.json", json.dumps(saved, indent=1, ensure_ascii=False) + "\n")
            print(f"## {name}\n\n{MEASURES[name].report(results)}\n\n{place}\n", flush=True)
    return int(failed)


def short_model(folder: Path) -> str:
    """Write a tiny model that often ends an answer, with an end token that no text holds; return its folder.

    Its row of the end token is longer than the others, so that the end wins wherever its logit is positive.
    """
    path = folder / "model"
    tokenizer = tiny_tokenizer()
    model = families.tiny("llama", max_position_embeddings=1024)
    with torch.no_grad():
        model.get_output_embeddings().weight[tokenizer.eos_token_id] *= 4
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


if __name__ == "__main__":
    raise SystemExit(main())
