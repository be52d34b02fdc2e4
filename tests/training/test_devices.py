"""Several processes train as one does: losses, vectors, scores, resuming, and errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.together import together
from torch.distributed.tensor import DTensor

import softprompt
from softprompt._system.launch import joined
from softprompt.config.load import recipe_from_dict
from softprompt.training.prepare import prepare
from softprompt.training.tune import Hooks, Interrupted, tune

pytestmark = pytest.mark.process

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss"]
#: Targets have different lengths, so that a mean of the processes' means would not be the mean of all tokens.
ROWS = [
    {
        "input": f"{WORDS[i % 8] * (1 + i % 3)} {i}",
        "target": ("yes", "certainly not", "perhaps so")[i % 3],
        "label": ("good", "bad")[i % 2],
        "style": ("joke", "fact", "poem")[i % 3],
    }
    for i in range(21)
]
LABELS = {"task": {"kind": "classification"}, "template": {"target": "{{ label }}"}}
PAIRS = {
    "task": {"kind": "preference", "max_new_tokens": 2},
    "template": {"input": "{{ input }}", "target": "{{ target }}", "rejected": "{{ label }}"},
}
#: One of each kind of step: see `training.step`.
CASES: dict[str, dict[str, Any]] = {
    "a table of prompts": {"method": "prompt-tuning", "prompt_field": "style", "batch_size": 5},
    "fewer rows than processes": {"method": "prompt-tuning", "placement": "before", "batch_size": 1},
    "labels": {"method": "prefix-tuning", "batch_size": 7, **LABELS},
    "several passes": {"method": "prefix-tuning", "placement": "before", "batch_size": 20, "cache": "off"},
    "by tokens": {"method": "p-tuning", "batch_tokens": 90},
    "tasks": {"method": "multitask-prompt-tuning", "prompt_field": "style", "batch_size": 4},
    "a prefix that reads the input": {"method": "generated-prefix", "batch_size": 5},
    "pairs": {"method": "prompt-tuning", "batch_size": 5, **PAIRS},
    "lora": {"method": "prompt-tuning", "base": {"mode": "lora", "lr": 1e-2}, "batch_size": 5},
}
#: Cases whose base is split over the processes, and what changes in them.
SPLIT: dict[str, dict[str, Any]] = {
    "a table of prompts": {"gradient_checkpointing": True},
    "fewer rows than processes": {},
    "a prefix that reads the input": {},
    "lora": {},
}


def train(
    lm: Any,
    output: Path,
    case: dict[str, Any],
    look: Callable[[Any], None] = lambda model: None,
    **changes: Any,
) -> dict[str, Any]:
    """Train in this process, or with the others; return the losses, the vectors and the scores."""
    losses: list[float] = []
    hooks = Hooks(on_event=lambda event: losses.append(event.loss))
    settings = {"steps": 3, "eval_every": 3, "length": 3, "task": {"max_new_tokens": 2}, "hooks": hooks}
    settings |= {"dev": ROWS[15:], "output": output, "dtype": "float32", **case, **changes}
    tuned = softprompt.tune(lm, settings.pop("method"), ROWS[:15], **settings)
    look(tuned.lm.model)
    base = {name: p for name, p in tuned.lm.model.named_parameters() if "lora" in name}
    tensors = {**tuned.method.state_dict(), **base}
    scores = tuned.artifact.manifest["dev"]["metrics"]
    return {
        "losses": losses,
        "tensors": {k: t.detach().clone() for k, t in tensors.items()},
        "scores": scores,
    }


def check_equal(single: dict[str, Any], several: dict[str, Any]) -> None:
    assert several["losses"] == pytest.approx(single["losses"], abs=1e-5)
    assert several["scores"] == pytest.approx(single["scores"], rel=1e-5, abs=1e-5)
    assert single["tensors"].keys() == several["tensors"].keys()
    for name, tensor in single["tensors"].items():
        torch.testing.assert_close(several["tensors"][name], tensor, atol=1e-5, rtol=0)


def in_turn(model: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Train all cases, on one model where it stays as it is."""
    lm = softprompt.load(str(model), dtype="float32")
    bases = {name: str(model) if "base" in case else lm for name, case in CASES.items()}
    return {name: train(bases[name], folder / name, case) for name, case in CASES.items()}


def split(model: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Train the cases of `SPLIT`, and check that no process holds the layers whole."""

    def look(model: Any) -> None:
        held = {
            key: p.to_local().numel() / p.numel() if isinstance(p, DTensor) else 1.0
            for key, p in model.named_parameters()
            if "lora" not in key
        }
        assert all((share < 0.7) == (".layers." in key) for key, share in held.items()), held

    return {
        name: train(str(model), folder / name, CASES[name], look, shard=True, **changes)
        for name, changes in SPLIT.items()
    }


def errors(folder: Path) -> str:
    return "".join((folder / f"{rank}.err").read_text() for rank in range(2))


def test_every_kind_of_step(model_folder, tmp_path):
    def run(rank: int) -> None:
        results = {"whole": in_turn(model_folder, tmp_path / "together")}
        results["split"] = split(model_folder, tmp_path / "split")
        torch.save(results, tmp_path / f"{rank}.pt")

    assert together(run, tmp_path) == [0, 0], errors(tmp_path)
    several = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, single in in_turn(model_folder, tmp_path / "alone").items():
        assert len(single["losses"]) == 3
        for results in several:
            check_equal(single, results["whole"][name])
            if name in SPLIT:
                check_equal(single, results["split"][name])


def test_resuming_with_another_number_of_processes(model_folder, tmp_path):
    """Stop after two steps and resume: in one process what two began, and in two what one began."""
    case = {"method": "prompt-tuning", "batch_size": 5}
    lm = softprompt.load(str(model_folder), dtype="float32")

    def stop(output: Path) -> None:
        events: list[Any] = []
        hooks = Hooks(on_event=events.append, should_stop=lambda: len(events) == 2)
        with pytest.raises(Interrupted):
            train(lm, output, case, hooks=hooks)

    def run(rank: int) -> None:
        stop(tmp_path / "two, one")
        torch.save(train(lm, tmp_path / "one, two", case), tmp_path / f"{rank}.pt")

    stop(tmp_path / "one, two")
    assert together(run, tmp_path) == [0, 0], errors(tmp_path)
    unbroken = train(lm, tmp_path / "unbroken", case)
    resumed = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for part in (*resumed, train(lm, tmp_path / "two, one", case)):
        assert len(part["losses"]) == 1
        check_equal({**unbroken, "losses": unbroken["losses"][2:]}, part)


def taught(
    model: Path, output: Path, on_policy: float = 0, **changes: Any
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Learn a teacher's distributions, in this process or with the others."""
    losses: list[float] = []
    recipe = recipe_from_dict(
        {
            "model": str(model),
            "data": {"train": "rows"},
            "task": {"objective": "distil", "max_new_tokens": 2},
            "teacher": {"context": "Say it in rhymes.", "on_policy": on_policy},
            "method": {"name": "prompt-tuning", "length": 3},
            "train": {"steps": 3, "eval_every": 3, "batch_size": 5, "dtype": "float32", **changes},
            "output": str(output),
        }
    )
    with joined(None) as world:
        run = prepare(recipe, rows=ROWS[:15], dev_rows=ROWS[15:], world=world)
        done = tune(run, hooks=Hooks(on_event=lambda event: losses.append(event.loss)))
    return losses, {name: t.detach().clone() for name, t in done.prepared.method.state_dict().items()}


def test_a_teacher_in_two_processes(model_folder, tmp_path):
    def run(rank: int) -> None:
        parts = [taught(model_folder, tmp_path / str(shard), shard=shard) for shard in (False, True)]
        answered = taught(model_folder, tmp_path / "answered", on_policy=1)
        torch.save([*parts, answered], tmp_path / f"{rank}.pt")

    assert together(run, tmp_path) == [0, 0], errors(tmp_path)
    alone = taught(model_folder, tmp_path / "alone")
    of_answers = taught(model_folder, tmp_path / "alone, answered", on_policy=1)
    assert len(alone[0]) == 3 and alone[0] != pytest.approx(of_answers[0], abs=1e-5)
    for rank in range(2):
        several = torch.load(tmp_path / f"{rank}.pt")
        for (one, vectors), (losses, tensors) in zip(several, (alone, alone, of_answers), strict=True):
            assert one == pytest.approx(losses, abs=1e-5)
            for name, tensor in tensors.items():
                torch.testing.assert_close(vectors[name], tensor, atol=1e-5, rtol=0)
