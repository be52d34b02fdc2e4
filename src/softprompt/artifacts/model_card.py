"""The model card of an artifact, which is written for people and read by no code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(manifest: Mapping[str, Any]) -> str:
    """Return the text of an artifact's README.md."""
    from jinja2 import Template

    dev = manifest["dev"]
    scores = []
    for name, value in dev["metrics"].items():
        interval = " to ".join(f"{end:.4g}" for end in dev["intervals"][name])
        scores.append((name, f"{value:.4g} (95 %: {interval}; n = {dev['rows'][name]})"))
    options = ", ".join(f"{key}={value}" for key, value in manifest["options"].items())
    template = Template(_CARD, trim_blocks=True, lstrip_blocks=True)
    return template.render(options_shown=options, scores=scores, **manifest)


_CARD = """\
# {{ method }} for {{ base.name }}

{{ 'Composed' if sources else 'Trained' }} vectors for a frozen language model,
made by softprompt {{ versions.softprompt }} on {{ created }}.

| | |
|---|---|
| method | {{ method }} ({{ options_shown }}) |
{% if distribution and distribution.name %}
| package | `pip install '{{ distribution.name }}=={{ distribution.version }}'` |
{% endif %}
| base model | {{ base.name }} ({{ base.mode }}; weights {{ base.fingerprint.weights }}) |
| prompts | {{ prompts | join(", ") }} |
{% if imported %}
| imported from | {{ imported }} |
{% elif sources %}
{% for source in sources %}
| made of | {{ source.folder }}, prompt {{ source.prompt }} (vectors {{ source.sha256[:16] }}) |
{% endfor %}
{% else %}
| trained parameters | {{ "{:,}".format(trained_parameters) }} |
| training rows | {{ data.rows }} (data {{ data.fingerprint[:16] }}) |
{% endif %}
{% for name, shown in scores %}
| dev {{ name }} | {{ shown }} |
{% endfor %}

Positions: {{ positions }}.

Use it:

    softprompt generate FOLDER "your input"{% if prompts | length > 1 %} --prompt {{ prompts[0] }}{% endif %}


Made by: `{{ command }}`
"""
