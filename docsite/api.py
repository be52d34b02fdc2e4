"""The pages of the Python reference name their objects; mkdocstrings writes them out."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass

from .tables import cell, table


@dataclass(frozen=True)
class Page:
    """A page of the reference holds these objects."""

    title: str
    about: str
    names: tuple[str, ...]


PAGES: dict[str, Page] = {
    "functions": Page(
        "Tune, search, compare, distil",
        "These functions do what the commands of the same names do.",
        (
            "softprompt.load",
            "softprompt.tune",
            "softprompt.search",
            "softprompt.compare_methods",
            "softprompt.distill",
            "softprompt.open_prompt",
            "softprompt.push",
            "softprompt.concatenate",
            "softprompt.average",
            "softprompt.scale",
        ),
    ),
    "tuned": Page(
        "Results",
        "What the functions return.",
        (
            "softprompt.Tuned",
            "softprompt.evaluation.records.Evaluation",
            "softprompt.compare.report.schema.Comparison",
            "softprompt.distillation.run.Distilled",
        ),
    ),
    "own-loop": Page(
        "Your own model and loop",
        "A transformers model of your own with prompts, and what trains it. "
        "[Your own model and training loop](../own-loop.md) introduces them.",
        (
            "softprompt.attach",
            "softprompt.SoftPromptModel",
            "softprompt.PromptCollator",
            "softprompt.model.trl_trainers.DPOTrainer",
            "softprompt.model.trl_trainers.KTOTrainer",
            "softprompt.model.trl_trainers.GRPOTrainer",
        ),
    ),
    "methods": Page(
        "Methods and their options",
        "Objects that name a method and its options: `softprompt.PrefixTuning(length=32)`. "
        "[Methods](../methods.md) says what each does.",
        (
            "softprompt.PromptTuning",
            "softprompt.PTuning",
            "softprompt.ResidualPromptTuning",
            "softprompt.MultitaskPromptTuning",
            "softprompt.PrefixTuning",
            "softprompt.GeneratedPrompt",
            "softprompt.GeneratedPrefix",
            "softprompt.LlamaAdapter",
            "softprompt.Head",
        ),
    ),
    "errors": Page(
        "Errors", "Every mistake that you can correct is this error.", ("softprompt.SoftPromptError",)
    ),
    "extend": Page(
        "For methods of your own",
        "What a method is made of. [Your own method](../own-method.md) introduces it.",
        (
            "softprompt.methods.base.SoftPrompt",
            "softprompt.methods.base.Setting",
            "softprompt.methods.base.soft_injection",
            "softprompt.methods.base.kv_injection",
            "softprompt.methods.method.Method",
            "softprompt.methods.init",
            "softprompt.injection",
            "softprompt.testing.check_method",
            "softprompt.testing.each_check",
            "softprompt.evaluation.metrics.Metric",
        ),
    ),
    "parts": Page(
        "Lower layers",
        "The parts that the functions are made of: recipes, models, artifacts, serving.",
        (
            "softprompt.config.load.load_recipe",
            "softprompt.config.load.recipe_from_dict",
            "softprompt.lm.base.LanguageModel",
            "softprompt.artifacts.artifact.load",
            "softprompt.serve.Engine",
            "softprompt.serve.Registry",
            "softprompt.serve.Request",
        ),
    ),
}


def contents() -> str:
    """Return a table of all names, each with a link and the first sentence of its docstring."""
    rows = []
    for place, page in PAGES.items():
        for name in page.names:
            link = f"[`{name}`](api/{place}.md#{name})"
            rows.append([link, cell(_first_sentence(name))])
    return table(["name", "purpose"], rows)


def pages() -> dict[str, str]:
    """Return each page of the reference by its place on the site."""
    return {f"api/{place}.md": _page(page) for place, page in PAGES.items()}


def _page(page: Page) -> str:
    return "\n".join([f"# {page.title}\n", f"{page.about}\n", *(f"::: {name}\n" for name in page.names)])


def _first_sentence(name: str) -> str:
    text = " ".join(inspect.cleandoc(inspect.getdoc(resolved(name)) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.])(?<!et al\.)\s", text)[0]


def resolved(name: str) -> object:
    """Return the module, class or function of a dotted name. Raises AttributeError where there is none."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(resolved(module), attribute)
