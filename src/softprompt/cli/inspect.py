"""`softprompt inspect` describes a tuned prompt's vectors, and what its run shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .opening import ArtifactFolder, ModelName, OtherBase, PromptName, TrustCode
from .output import Json, Reply, log, number, table

if TYPE_CHECKING:
    from ..artifacts.inspect import Inspection, LayerNorms, Near, SoftVector

SHOWN_PROMPTS = 4


def inspect(
    artifact: ArtifactFolder,
    prompt: PromptName = None,
    top: Annotated[
        int, typer.Option("--top", min=1, metavar="K", help="How many nearest tokens to show.")
    ] = 3,
    model: ModelName = None,
    other_base: OtherBase = False,
    trust_remote_code: TrustCode = False,
    json: Json = False,
) -> Reply:
    """Describe a tuned prompt's vectors.

    It shows the vocabulary tokens nearest to soft tokens, the norms of prefixes by layer, how far the
    vectors moved from the start, and how similar the prompts are. Then it lists problems of the run, each
    with its evidence and the command that fixes it.

    \b
    Example:
      softprompt inspect runs/prompt --top 5
    """
    from ..artifacts import artifact as artifacts
    from ..artifacts import inspect as inspection
    from ..build import saved_base, start_of
    from ..evaluation import diagnostics
    from ..evaluation.diagnostics.gather import run_of, with_tfidf

    opened = artifacts.load(artifact)
    names = None if prompt is None else [opened.prompts[opened.index(prompt)]]
    base = opened.manifest["base"]
    log(f"loading {model or base['name']} …")
    lm = saved_base(opened, model, trust_remote_code=trust_remote_code)
    findings = diagnostics.examine(with_tfidf(run_of(opened, lm)))  # first: a trained base changes `lm`
    result = inspection.inspect(opened, lm, names=names, top=top, other_base=other_base, start_of=start_of)
    data = {
        "artifact": str(opened),
        "method": opened.manifest["method"],
        "model": base["name"],
        **asdict(result),
        "prompt_names": list(opened.prompts),
        "findings": [finding.to_json() for finding in findings],
    }
    head = f"{opened.manifest['method']} for {base['name']}"
    problems = ["findings:\n" + "\n".join(map(str, findings))] if findings else []
    return Reply(data, None if json else "\n\n".join([head, *_blocks(result, opened.prompts), *problems]))


def _blocks(result: Inspection, names: tuple[str, ...]) -> list[str]:
    low, high = result.usual_norms
    blocks = []
    if result.generated:
        blocks.append("generated from the input: what follows describes the static part")
    for report in result.prompts[:SHOWN_PROMPTS]:
        for channel, vectors in report.soft.items():
            usual = f"the vocabulary's: {number(result.usual_norm)}, mostly {number(low)} to {number(high)}"
            blocks.append(f"prompt '{report.name}', soft tokens {channel} the input (norms of {usual})\n")
            blocks[-1] += _soft_table(vectors)
        for channel, layers in report.layers.items():
            title = f"prompt '{report.name}', {_place(channel)} (mean norms, beside those of real text)\n"
            blocks.append(title + _layer_table(layers))
    if not any(report.soft or report.layers for report in result.prompts):
        return ["it holds no vectors: only the base model's own weights were trained"]
    if len(result.prompts) > SHOWN_PROMPTS:
        blocks.append(f"… {len(result.prompts) - SHOWN_PROMPTS} more prompts: --prompt NAME")
    if result.no_start:
        blocks.append(f"how far it moved is not known: {result.no_start}")
    if result.similarity is not None:
        blocks.append("similarity of the prompts (cosine of all their vectors)\n" + _pairs(result, names))
    return blocks


def _place(channel: str) -> str:
    places = {"kv_before": "prefix before the input", "kv_after": "prefix after the input"}
    return places.get(channel, "gated prefix")


def _soft_table(vectors: list[SoftVector]) -> str:
    rows = [("", "norm", "moved", "nearest by cosine", "nearest by distance")]
    rows += [
        (str(i), number(v.norm), number(v.moved), _near(v.by_cosine), _near(v.by_distance))
        for i, v in enumerate(vectors)
    ]
    return table(rows, right=[0, 1, 2])


def _near(tokens: tuple[Near, ...]) -> str:
    return "  ".join(f"{token.token.strip() or repr(token.token)} {token.value:.2f}" for token in tokens)


def _layer_table(layers: list[LayerNorms]) -> str:
    gated = any(layer.gate is not None for layer in layers)
    rows: list[tuple[str, ...]] = []
    rows.append(("layer", "keys", "usual", "moved", "values", "usual", "moved", *(["gate"] if gated else [])))
    for layer in layers:
        cells = [str(layer.layer), number(layer.key), number(layer.usual_key), _share(layer.key_moved)]
        cells += [number(layer.value), number(layer.usual_value), _share(layer.value_moved)]
        rows.append((*cells, *([number(layer.gate)] if gated else [])))
    return table(rows, right=range(8))


def _share(moved: float | None) -> str:
    return "n/a" if moved is None else f"{100 * moved:.0f}%"


def _pairs(result: Inspection, names: tuple[str, ...]) -> str:
    similarity = result.similarity or []
    if len(names) <= 8:
        rows = [("", *names)]
        rows += [
            (name, *(f"{value:.3f}" for value in row)) for name, row in zip(names, similarity, strict=True)
        ]
        return table(rows, right=range(1, len(names) + 1))
    pairs = sorted(
        ((similarity[i][j], names[i], names[j]) for i in range(len(names)) for j in range(i)), reverse=True
    )
    return table([(f"{value:.3f}", a, b) for value, a, b in pairs[:10]])
