"""Renders the page: one HTML file that needs no network, and works without its script."""

from __future__ import annotations

from importlib import resources

from markupsafe import Markup

from .._system.page_assets import base_style, content_hash
from .blocks import Report


def render(report: Report, *, source: str) -> str:
    """Return the page as text; its last line names its `source`.

    The template escapes all that comes from rows, names or errors.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("softprompt.page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    script = asset("page.js")
    return environment.get_template("page.html.j2").render(
        report=report,
        source=source,
        style=Markup(base_style() + asset("page.css")),
        script=Markup(script),
        # only this very script may run, whatever a text of a row may contain
        script_hash=content_hash(script),
    )


def asset(name: str) -> str:
    """Read a file of templates/."""
    return (resources.files("softprompt.page") / "templates" / name).read_text(encoding="utf-8")
