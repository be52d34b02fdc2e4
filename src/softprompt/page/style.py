"""A line of a figure has a colour and a shape, so that neither is needed alone."""

from __future__ import annotations

from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "down", "plus", "bar")
COLOURS = 8


@dataclass(frozen=True)
class Look:
    """`colour` is a CSS class that sets `--c`; references are grey, with a dash pattern each."""

    name: str
    colour: str
    shape: str
    dash: str = ""
