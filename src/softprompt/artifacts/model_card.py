"""The model card of an artifact, which is written for people and read by no code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .card_metadata import License, hub_base, metadata
from .manifest import using_command

LISTED = 20  # names of a table that the card lists


def model_card(
    manifest: Mapping[str, Any],
    *,
    id: str | None = None,
    license: License | None = None,
    more: Mapping[str, Any] | None = None,
    text: str | None = None,
) -> str:
    """Return an artifact's README.md: metadata for the hub, then how it is used and how it was made.

    `id` is the name by which it is loaded, `hf:ID` or else a folder. `more` are further fields of metadata.
    `text` replaces all that follows the metadata.
    """
    name = Path(manifest["recipe"]["output"]).name if id is None else id.partition("@")[0].rpartition("/")[2]
    about = metadata(manifest, name, license, more)
    body = (
        _body(manifest, id or "FOLDER", name if id else None, about.get("license")) if text is None else text
    )
    return f"---\n{about.to_yaml()}\n---\n\n{body.lstrip()}"


def _body(manifest: Mapping[str, Any], id: str, name: str | None, license: str | None) -> str:
    from jinja2 import Environment

    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"cell": _cell, "listed": _listed}
    fields = _fields(manifest)
    several = len(manifest["prompts"]) > 1
    return environment.from_string(_CARD).render(
        manifest,
        id=id,
        title=name,
        command=using_command(manifest["recipe"]),
        on_hub=hub_base(manifest) is not None,
        base_kind="frozen language model" if manifest["base"]["mode"] == "frozen" else "language model",
        versions_shown=", ".join(f"{name} {version}" for name, version in manifest["versions"].items()),
        license=license,
        options_shown=", ".join(
            f"{key}={value}" for key, value in manifest["options"].items() if value is not None
        ),
        scores=_scores(manifest),
        row="{" + ", ".join(f'"{field}": "…"' for field in fields) + "}" if len(fields) != 1 else None,
        chosen=f" --prompt {_quoted(manifest['prompts'][0])}" if several else "",
        argument=f", prompt={manifest['prompts'][0]!r}" if several else "",
    )


def _scores(manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return each metric with its score and that of the plain model, both with intervals."""
    dev, plain = manifest["dev"], manifest.get("plain") or {"metrics": {}}

    def shown(part: Mapping[str, Any], name: str) -> str:
        if name not in part["metrics"]:
            return "n/a"
        interval = " to ".join(f"{end:.4g}" for end in part["intervals"][name])
        return f"{part['metrics'][name]:.4g} (95 %: {interval}; n = {part['rows'][name]})"

    return [(name, shown(dev, name), shown(plain, name)) for name in dev["metrics"]]


def _fields(manifest: Mapping[str, Any]) -> list[str]:
    """Return the fields of a row that the input's template reads, in their order."""
    from jinja2 import Environment, TemplateError, meta

    text = str((manifest["recipe"].get("template") or {}).get("input") or "")
    try:
        names = meta.find_undeclared_variables(Environment().parse(text))
    except TemplateError:
        return []
    return sorted(names, key=text.find)


def _listed(names: Sequence[str]) -> str:
    """Return the first names of many."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f", … {more} more" if more > 0 else "")


def _cell(value: Any) -> str:
    """Return text that stays in one cell of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


_CARD = """\
# {{ title or (method ~ " for " ~ base.name) }}

{{ 'Composed' if sources else 'Trained' }} vectors ({{ method }}) for the {{ base_kind }} {{ base.name }}, \
made by softprompt {{ versions.softprompt }} on {{ created }}.
{% if base.mode != 'frozen' %}
Weights of the base model were trained too (base={{ base.mode }}), and are part of this artifact.
{% endif %}

## Use it

```bash
{% if row %}
echo '{{ row }}' | softprompt {{ command }} {{ id }} --file -{{ chosen }}
{% else %}
softprompt {{ command }} {{ id }} "your input"{{ chosen }}
{% endif %}
```

```python
import softprompt

tuned = softprompt.open_prompt("{{ id }}")
print(tuned.{{ "encode" if command == "embed" else "generate" }}({{ row or '"your input"' }}{{ argument }}))
```

The base model is loaded too, and compared with the one that the vectors were trained on.
{% if base.trust_remote_code %}
It brings code of its own, which runs only with `--trust-remote-code`, or `trust_remote_code=True` in Python.
{% endif %}
{% if not on_hub %}
It is no model of the hub: `--model FOLDER`, or `model=FOLDER` in Python, says where it is.
{% endif %}

## How it was made

| | |
|---|---|
| method | {{ method | cell }} ({{ options_shown | cell }}) |
{% if distribution and distribution.name %}
| package | `pip install '{{ distribution.name }}=={{ distribution.version }}'` |
{% endif %}
| base model | {{ base.name | cell }} ({{ base.mode }}; weights {{ base.fingerprint.weights }}) |
| precision | {{ base.dtype }}{% if base.weights %}, {{ base.weights }} weights{% endif %} |
{% if base.revision %}
| base revision | {{ base.revision | cell }} |
{% endif %}
{% if base.quantization %}
| base quantization | {{ base.quantization | cell }} |
{% endif %}
| prompts | {{ prompts | listed | cell }} |
{% if labels %}
| labels | {{ labels | listed | cell }} |
{% endif %}
{% if imported %}
| imported from | {{ imported | cell }} |
{% elif sources %}
{% for source in sources %}
| made of | {{ source.folder | cell }}, prompt {{ source.prompt | cell }} (vectors {{ source.sha256[:16] }}) |
{% endfor %}
{% else %}
| trained parameters | {{ "{:,}".format(trained_parameters) }} |
| training rows | {{ data.rows }} (data {{ data.fingerprint[:16] }}) |
{% if training %}
| steps | {{ training.steps }} (the best on the dev rows: {{ training.best_step }}) |
{% endif %}
{% if identity and identity.settings %}
| learning rate | {{ identity.settings["train.lr"] }} |
| batch size | {{ identity.settings["train.batch_size"] }} |
| seed | {{ identity.settings["train.seed"] }} |
{% endif %}
{% endif %}
| versions | {{ versions_shown }} |
| positions | {{ positions | cell }} |
| made by | `{{ command | cell }}` |

The template of the input:

~~~text
{{ recipe.template.input }}
~~~

{% if scores %}
## Scores

On the dev rows. The training step was chosen on the same rows, so these scores are optimistic.

| metric | this prompt | the plain model |
|---|---|---|
{% for name, tuned, plain in scores %}
| {{ name | cell }} | {{ tuned }} | {{ plain }} |
{% endfor %}

{% endif %}
## Licence

{% if license %}
{{ license }}
{% else %}
Its owner has stated no licence. The licence of the base model applies to the base model alone.
{% endif %}
"""
