"""The page: one HTML file that asks nothing of a network, and works without its script."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from markupsafe import Markup

from .blocks import Report


def render(report: Report) -> str:
    """The page as text. Whatever comes from rows, names or errors is escaped by the template."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("softprompt.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    script = asset("page.js")
    return environment.get_template("page.html.j2").render(
        report=report,
        style=Markup(asset("base.css") + asset("page.css")),
        script=Markup(script),
        # only this very script may run, whatever a text of a row may contain
        script_hash=content_hash(script),
    )


def content_hash(text: str) -> str:
    """SHA-256 as a content security policy names a script or a style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def asset(name: str) -> str:
    """A file of templates/. base.css: colours, type and the frame, which other pages may share."""
    return (resources.files("softprompt.report") / "templates" / name).read_text(encoding="utf-8")
