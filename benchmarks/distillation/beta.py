"""It measures what kept biases and budgets by head would add to the matched start, untrained and trained.

Attention Matching (2602.16284) gives each column of a prefix a bias β on its logit, and each head as many
columns as it needs. `init: matched` absorbs the biases into the keys, and all heads have the same number of
columns, so that any engine takes the prefix. The ways that are compared:

- `one shift`: absorbed, with one bias for all columns of a head;
- `absorbed`: `init: matched`, with a bias for each column;
- `kept`: the same biases, added to the logits (see `wide`), and trained as the vectors are;
- `by head`: kept, and as many columns in all, given to the heads where they lessen the error of the layer's
  output most, as a share of the hidden states there. Its tensors are as wide as the head with the most.

Nothing but the start, and whether a bias is trained, differs.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch

from softprompt import methods
from softprompt.cache import InputCache
from softprompt.config.load import recipe_from_dict
from softprompt.data.example import Example
from softprompt.distillation.measure import share_kept
from softprompt.distillation.recipe import recipe_of
from softprompt.distillation.ways import plain_model
from softprompt.distillation.work import Arguments, begin
from softprompt.evaluation.evaluator import Evaluator, evaluator_of
from softprompt.evaluation.records import Evaluation
from softprompt.injection import Layers
from softprompt.methods.base import PrefixLayers, SoftPrompt, flatten
from softprompt.methods.keyword_arguments import sections
from softprompt.methods.matched_start import rests
from softprompt.methods.prefix_tuning import PrefixTuning
from softprompt.training.decisive import optimization
from softprompt.training.dev_scores import DevScorer
from softprompt.training.learner import Learner
from softprompt.training.loop import fit_together
from softprompt.training.prepare import Prepared, prepare
from softprompt.training.run import Hooks
from softprompt.training.sampler import row_lengths
from softprompt.training.step import StepPart, TrainStep
from softprompt.training.teacher import taught
from softprompt.training.trained import named_parameters

from . import beta_fits, wide
from .bench import Bench, Result, errors, percent, table, whole
from .requests import requests_for
from .system import names as names_of_prompts
from .system import words

TEXTS = ("json_only", "glossary", "island")
LENGTHS = (16, 64)
WAYS = ("one shift", "absorbed", "kept", "by head")
BIASED = ("kept", "by head")
TRAINED = ("absorbed", "kept", "by head")  # what was absorbed by one shift is trained no differently
BASE = "absorbed"  # what the others are compared with
FITTED = 64  # rows whose queries decide
LAST = 24  # tokens of a row whose hidden states are the measure of an error
OPTIONS = {"steps": 60, "keep": 0}


@dataclass(frozen=True)
class Case:
    """A case is a text with its rows, and what they keep without it."""

    prepared: Prepared
    evaluator: Evaluator
    rows: Sequence[Example]  # that are measured on
    none: Evaluation
    text: Sequence[int]
    behind: Sequence[Sequence[int]]  # training rows behind the text
    alone: Sequence[Sequence[int]]  # the same without it

    def share(self, method: SoftPrompt) -> list[float]:
        """Return the share of the text's effect that a method keeps, with its 95 % interval."""
        return list(share_kept(self.evaluator.run(method, self.rows, text_rows=0), self.none))

    def fitted(self, length: int, fit: beta_fits.Fit) -> Layers:
        """Return columns that are fitted to the text, layer by layer."""
        seed = self.prepared.recipe.train.seed
        return self.prepared.lm.fit_prefix(self.text, self.behind, self.alone, length, fit, seed)


def names(bench: Bench) -> list[str]:
    """Return the names of the prompts."""
    return names_of_prompts(bench)


def measure(bench: Bench) -> list[Result]:
    """Fit and train every way, for some prompts and numbers of vectors."""
    texts = bench.chosen(names(bench) if bench.only or bench.short else TEXTS)
    cases = {text: cache(partial(case_of, bench, text)) for text in texts}
    return [
        bench.once(
            f"beta-{text}-{length}-{way.replace(' ', '-')}", partial(measured, text, case, length, way)
        )
        for length in bench.lengths or ((4,) if bench.short else LENGTHS)
        for text, case in cases.items()
        for way in WAYS
    ]


def report(results: Sequence[Result]) -> str:
    """Format the shares of each way, and the differences to the absorbed biases over all prompts."""
    good = whole(results)
    rows = [
        (
            r["prompt"],
            r["text_tokens"],
            r["length"],
            r["way"],
            _columns(r),
            percent(r["untrained"]),
            percent(r["trained"]) if "trained" in r else "–",
            f"{r['fit_seconds']:.0f}",
        )
        for r in good
    ]
    base = {(r["prompt"], r["length"]): r for r in good if r["way"] == BASE}
    over = []
    for length in sorted({r["length"] for r in good}, reverse=True):
        for way in WAYS:
            pairs = [
                (r, base[r["prompt"], length])
                for r in good
                if (r["length"], r["way"]) == (length, way) and way != BASE and (r["prompt"], length) in base
            ]
            if pairs:
                over.append((length, way, *(_difference(pairs, when) for when in ("untrained", "trained"))))
    header = ("prompt", "tokens", "vectors", "way", "columns a head", "untrained", "trained", "fit, s")
    parts = [
        table(header, rows),
        table(("vectors", "way", f"untrained, points over {BASE}", "trained"), over) if over else "",
        errors(results),
    ]
    return "\n\n".join(filter(None, parts))


def _columns(result: Result) -> str:
    least, middle, most = result["columns"]
    return str(most) if least == most else f"{least} to {most}, median {middle:g}"


def _difference(pairs: Sequence[tuple[Result, Result]], when: str) -> str:
    """Format the differences of shares in points: the median, and each."""
    points = [100 * (a[when][0] - b[when][0]) for a, b in pairs if when in a]
    if not points:
        return "–"
    return f"{statistics.median(points):+.1f} ({', '.join(f'{p:+.1f}' for p in points)})"


def case_of(bench: Bench, text: str) -> Case:
    """Have the teacher answer a prompt's requests, and encode them."""
    content = words(text, bench.short)
    named = sections({**OPTIONS, **bench.without("seeds").settings}, "distill")
    changes = {name: named[name] for name in ("template", "task", "train", "teacher")}
    changes["teacher"] = {**named["teacher"], "context": content}
    chat = bool(getattr(bench.lm.tokenizer, "chat_template", None))
    tree = recipe_of({**changes, "output": str(bench.out / "runs" / f"beta-{text}")}, content, chat=chat)
    tree["model"] = bench.lm.origin.recipe(bench.lm.name)
    tree["method"] |= {"init": "context", **named["method"], "length": 1, "freeze_first": False}  # not used
    recipe = recipe_from_dict(tree, method_option_names=methods.option_names())
    work = begin(recipe, Arguments(requests_for(text, bench.short), lm=bench.lm))
    _, (train, dev, test) = work.answered(Hooks())
    prepared = prepare(work.recipe, lm=work.lm, rows=train, dev_rows=dev)
    recipe, lm = prepared.recipe, prepared.lm
    (rows,), _ = taught(recipe, lm, prepared.prompts, [prepared.encoder.encode_rows(test)])
    _, ids = taught(recipe, lm, prepared.prompts, [prepared.train])
    evaluator = replace(evaluator_of(recipe, lm, prepared.encoder), metrics=("kl",))
    none = evaluator.run(plain_model(prepared), rows, text_rows=0)
    alone = [(*example.input_ids, *example.target_ids) for example in prepared.train[:FITTED]]
    return Case(prepared, evaluator, rows, none, ids, rests(ids, alone), alone)


def measured(text: str, make_case: Callable[[], Case], length: int, way: str) -> Result:
    """Fit a way, measure it, train it, and measure it again."""
    case = make_case()
    started = time.perf_counter()
    with wide.attention() if way in BIASED else contextlib.nullcontext():
        columns = [length]
        if way == "by head":
            lengths = budgets(case, length)
            columns = [n for of_layer in lengths.values() for n in of_layer]
            fit = beta_fits.by_head(lengths, max(columns))
        else:
            ways = {"one shift": beta_fits.one_shift, "absorbed": beta_fits.absorbed, "kept": beta_fits.kept}
            fit = ways[way](length)
        layers = case.fitted(max(columns), fit)
        seconds = time.perf_counter() - started
        method = method_of(case, layers)
        shares = {"untrained": case.share(method)}
        if way in TRAINED:
            train(case, method)
            shares["trained"] = case.share(method)
        return {
            "prompt": text,
            "way": way,
            "length": length,
            "text_tokens": len(case.text),
            "columns": [min(columns), statistics.median(columns), max(columns)],
            "fit_seconds": seconds,
            **shares,
            "n": len(case.rows),
        }


def budgets(case: Case, length: int) -> dict[int, list[int]]:
    """Return the columns of each head, by layer."""
    lm: Any = case.prepared.lm
    ids = torch.tensor([[*case.text, *case.behind[0]]], device=lm.device)
    with torch.no_grad():
        states = lm.model.base_model(input_ids=ids, output_hidden_states=True).hidden_states
    sizes = [float(state[0, -LAST:].float().square().sum(-1).mean()) for state in states]
    weights = [layer.self_attn.o_proj.weight.detach() for layer in lm.model.model.layers]
    scaled = [weight / size**0.5 for weight, size in zip(weights, sizes, strict=False)]
    lost: dict[tuple[int, int], dict[int, float]] = {}
    case.fitted(length, beta_fits.measuring(length, len(case.text), scaled, lost))
    return beta_fits.budgets(lost, length)


def method_of(case: Case, layers: Layers) -> PrefixTuning:
    """Make the prefix that training changes; its first column stays as it is."""
    places = wide.places_of(layers, PrefixLayers.choose(case.prepared.lm.spec, "all", "before"))
    keys, values = (t.float().contiguous() for t in flatten(layers))
    options: dict[str, Any] = {"values_only": False, "freeze_first": True, "reparameterize": False}
    return PrefixTuning(places, keys, values, "before", middle=0, **options)


def train(case: Case, method: PrefixTuning) -> None:
    """Train as `distill` does, and leave the best state on the dev rows in the method."""
    run = replace(case.prepared, method=method)
    lengths = row_lengths(run.train, run.recipe.train.batch_tokens)
    scorer = DevScorer(case.evaluator, run, InputCache())
    learner = Learner(named_parameters(run.lm, method), lengths, scorer, optimization(run.recipe))
    fit_together([learner], TrainStep(run.lm, [StepPart.of(run)], InputCache()).backward)
