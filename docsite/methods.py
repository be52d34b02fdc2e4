"""A method's page has its module's docstring (equation, departures), papers, and the options of `build`."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from typing import Any

from softprompt.methods import METHODS

from .tables import code, table

#: Authors and year, title, number on arXiv.
PAPERS: dict[str, list[tuple[str, str, str]]] = {
    "prompt-tuning": [
        ("Lester et al. 2021", "The Power of Scale for Parameter-Efficient Prompt Tuning", "2104.08691"),
    ],
    "p-tuning": [("Liu et al. 2021", "GPT Understands, Too", "2103.10385")],
    "residual-prompt-tuning": [
        (
            "Razdaibiedina et al. 2023",
            "Residual Prompt Tuning: Improving Prompt Tuning with Residual Reparameterization",
            "2305.03937",
        ),
    ],
    "multitask-prompt-tuning": [
        (
            "Wang et al. 2023",
            "Multitask Prompt Tuning Enables Parameter-Efficient Transfer Learning",
            "2303.02861",
        ),
    ],
    "prefix-tuning": [
        ("Li and Liang 2021", "Prefix-Tuning: Optimizing Continuous Prompts for Generation", "2101.00190"),
        (
            "Liu et al. 2021",
            "P-Tuning v2: Prompt Tuning Can Be Comparable to Fine-tuning Universally Across Scales and Tasks",
            "2110.07602",
        ),
    ],
    "generated-prompt": [
        ("Wu et al. 2022", "IDPG: An Instance-Dependent Prompt Generation Method", "2204.04497"),
        (
            "Muppidi et al. 2025",
            "Leveraging Self-Attention for Input-Dependent Soft Prompting in LLMs (ID-SPAM)",
            "2506.05629",
        ),
    ],
    "generated-prefix": [
        ("Wu et al. 2022", "IDPG: An Instance-Dependent Prompt Generation Method", "2204.04497"),
        (
            "Muppidi et al. 2025",
            "Leveraging Self-Attention for Input-Dependent Soft Prompting in LLMs (ID-SPAM)",
            "2506.05629",
        ),
    ],
    "llama-adapter": [
        (
            "Zhang et al. 2023",
            "LLaMA-Adapter: Efficient Fine-tuning of Language Models with Zero-init Attention",
            "2303.16199",
        ),
    ],
}


def _own() -> dict[str, Any]:
    """Return the library's own methods; a package that is installed beside it may add others."""
    return {name: m for name, m in METHODS.items() if m.build.__module__.startswith("softprompt.methods.")}


def contents() -> str:
    """Return a list of the methods, each with a link to its page."""
    return "\n".join(f"- [`{name}`](methods/{name}.md): {m.summary}" for name, m in _own().items()) + "\n"


def pages() -> dict[str, str]:
    """Return the page of each method by its place on the site."""
    return {f"methods/{name}.md": _page(name, method) for name, method in _own().items()}


def _page(name: str, method: Any) -> str:
    code_of_it = sys.modules[method.build.__module__]
    parts = [f"# {name}\n", _prose(inspect.cleandoc(code_of_it.__doc__ or ""))]
    parts.append("## In use\n")
    parts.append(_use(name, list(method.options())))
    if papers := PAPERS.get(name):
        parts.append("## Papers\n")
        parts += [f"- {who}: [{title}](https://arxiv.org/abs/{number})" for who, title, number in papers]
        parts.append("")
    if options := method.options():
        hints = method.hints()
        rows = [[f"`{o}`", code(_type(hints[o])), code(p.default)] for o, p in options.items()]
        parts.append("## Options\n\n" + table(["option", "type", "default"], rows))
        parts.append("[Methods](../methods.md) says what the options do.\n")
    if method.lr:
        parts.append(f"The learning rate is {method.lr:g} (AdamW) where a recipe names none.\n")
    return "\n".join(parts)


def _use(name: str, options: list[str]) -> str:
    more = " length=16 placement=after" if {"length", "placement"} <= set(options) else ""
    return f"```text\nsoftprompt tune recipe.yaml method={name}{more}\n```\n"


def _prose(text: str) -> str:
    """Return a docstring as Markdown: indented paragraphs are equations, and keep their lines."""
    parts = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("    "):
            parts.append(f"```text\n{inspect.cleandoc(paragraph)}\n```\n")
        else:
            parts.append(paragraph + "\n")
    return "\n".join(parts)


def _type(hint: Any) -> str:
    """Return a type in words: the values of a Literal, and null for None."""
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(_type(each) for each in typing.get_args(hint))
    words = {str: "text", int: "integer", float: "number", bool: "true | false", type(None): "null"}
    return words.get(hint) or re.sub(r"\w+\.", "", str(hint))
