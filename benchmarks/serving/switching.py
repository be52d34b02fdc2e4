"""Compare requests for many prompts in the engine with PEFT's two ways of serving them.

PEFT switches the adapter for every request, or answers the requests of one adapter as a batch. It gets
the same vectors, and must give the same tokens. All inputs have one length, since PEFT pads wrongly.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.base_models import plain
from benchmarks.training.line import Line
from softprompt.artifacts import artifact as artifacts

from .bench import Bench, answers, ratio, request

GOAL, EACH = 8.0, 4


def measure(bench: Bench) -> Iterator[Line]:
    """Measure requests a second."""
    options = {"length": bench.length, "placement": "before"}
    names = [bench.publish(f"soft/{i}", "prompt-tuning", options, i) for i in range(bench.prompts)]
    peft = Peft(bench, names)
    for inputs in bench.inputs:
        case = f"switching: {len(names)} prompts, {inputs} tokens in, {bench.tokens} out"
        yield compare(bench, peft, names, inputs, 1, case, GOAL)
    case = f"grouping: {EACH} requests for each of {len(names)} prompts, {bench.inputs[0]} in"
    yield compare(bench, peft, names, bench.inputs[0], EACH, case, None)


def compare(
    bench: Bench, peft: Peft, names: list[str], inputs: int, each: int, case: str, goal: float | None
) -> Line:
    """Time `each` requests for every prompt: softprompt takes all at once, PEFT one adapter at a time."""
    ids = [bench.ids(inputs) for _ in range(each * len(names))]
    requests = [request(names[i // each], row, bench.tokens) for i, row in enumerate(ids)]
    got: dict[str, list[list[int]]] = {}
    with bench.engine(cache_bytes=0) as engine:

        def ours() -> None:
            got["ours"] = answers(engine, requests)

        def theirs() -> None:
            got["theirs"] = peft.grouped(ids, each)

        answers(engine, requests[:2])  # a whole turn of PEFT's takes minutes: both warm up on less
        peft.grouped(ids[:each], each)
        times = bench.in_turns({"ours": ours, "theirs": theirs}, warm=False)
    pairs = zip(got["ours"], got["theirs"], strict=True)
    wrong = sum(a != b for a, b in pairs) if bench.exact else 0
    ours_a_second, theirs_a_second = (len(ids) / median(times[side]) for side in ("ours", "theirs"))
    return Line(
        "peft",
        case,
        ours_a_second,
        theirs_a_second,
        "requests/s",
        ratio(times["theirs"], times["ours"]),
        goal,
        wrong=f"{wrong} of {len(ids)} answers are not PEFT's" if wrong else "",
    )


class Peft:
    """Holds the prompts as adapters of one PEFT model."""

    def __init__(self, bench: Bench, names: list[str]) -> None:
        from peft import PeftModel

        from softprompt.artifacts.interop.peft import export

        self.names, self.tokens = [name.replace("/", "-") for name in names], bench.tokens
        self.model: Any = None
        base = plain(bench.lm)
        with tempfile.TemporaryDirectory() as folder:
            for name, adapter in zip(names, self.names, strict=True):
                export(artifacts.load(bench.folder / name), bench.lm, Path(folder) / adapter)
                if self.model is None:
                    self.model = PeftModel.from_pretrained(base, Path(folder) / adapter, adapter)
                else:
                    self.model.load_adapter(str(Path(folder) / adapter), adapter)
        self.model.eval()

    def grouped(self, ids: list[tuple[int, ...]], each: int) -> list[list[int]]:
        """Answer `each` requests of one adapter at a time."""
        tokens = []
        for i in range(0, len(ids), each):
            tokens += self._generate(i // each, ids[i : i + each])
        return tokens

    @torch.no_grad()
    def _generate(self, adapter: int, ids: list[tuple[int, ...]]) -> list[list[int]]:
        self.model.set_adapter(self.names[adapter])
        inputs = torch.tensor(ids, device=self.model.device)
        output = self.model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=self.tokens,
            min_new_tokens=self.tokens,
            do_sample=False,
            pad_token_id=0,
        )
        return output[:, -self.tokens :].tolist()
