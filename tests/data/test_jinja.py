"""Templates end whatever they say, and names in them are the row's fields."""

from __future__ import annotations

import json
import threading

import pytest

from softprompt.compare.held_out import all_splits
from softprompt.config.load import recipe_from_dict
from softprompt.data.sources import Row
from softprompt.data.template import Template
from softprompt.data.template_checks import check_rows
from softprompt.errors import SoftPromptError

ROW = Row({"text": "x" * 1000, "n": 10**9, "items": list(range(1000)), "w": "ab"}, "r:1")
DOUBLED = "{% set x = items %}" + "{% set x = [x, x] %}" * 40
ENDLESS = [
    "{% for a in text %}{% for b in text %}{% for c in text %}.{% endfor %}{% endfor %}{% endfor %}",
    "{% for a in text %}{% for b in text if false %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for x in items recursive %}{{ loop(items) }}{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ n * [0] }}",
    "{{ 10**n }}",
    "{{ text.center(n) }}",
    "{{ text | center(n) }}",
    "{{ text | map('center', 10**9) | join }}",
    "{{ text | indent(n) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (n, 1) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, n) }}",
    "{{ text.replace('', text).replace('', text) }}",
    "{{ text | replace('', text) | replace('', text) }}",
    "{{ items | batch(n, 'x') | list }}",
    "{{ items | tojson(indent=n) }}",
    "{{ 1.5 | round(n, 'ceil') }}",
    "{{ (1).to_bytes(n, 'big') }}",
    "{% set x = text %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}",
    "{% set _ = items.append(items) %}{{ items }}",
    "{{ items.extend(items) }}",
    *(DOUBLED + end for end in ("{{ x }}", "{{ x | string }}", "{{ x ~ 'a' }}", "{{ '%s' % x }}")),
    DOUBLED + "{% set y = items %}" + "{% set y = [y, y] %}" * 40 + "{{ x == y }}",
    "{% for a in items %}" + "y" * 90_000 + "{% endfor %}",
]
TOO_DEEP = [
    "{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}",
    "{{ " + "-" * 50_000 + "1 }}",
    "{{ a" + ".a" * 20_000 + " }}",
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "{{ " + "9" * 5000 + " }}",
    "x" * 200_000,
]


def fails(call) -> str:
    with pytest.raises(SoftPromptError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("source", ENDLESS, ids=lambda source: source[:40])
def test_templates_end(source):
    assert "r:1: template.input" in fails(lambda: Template(source).render_input(ROW))


@pytest.mark.parametrize("source", TOO_DEEP, ids=lambda source: source[:12])
def test_deep_templates_are_refused(source):
    assert fails(lambda: Template(source)).startswith("template.input")


def test_limits_hold_on_other_threads_and_start_anew():
    template, found = Template("{% for a in items %}{{ a }}{% endfor %}"), []
    thread = threading.Thread(
        target=lambda: found.append(fails(lambda: Template(ENDLESS[0]).render_input(ROW)))
    )
    thread.start()
    thread.join()
    assert "200,000 steps" in found[0]
    expected = "".join(map(str, range(1000)))
    assert [template.render_input(ROW) for _ in range(300)] == [expected] * 300  # each row has its own budget


def test_what_templates_commonly_do_still_works():
    row = Row({"t": "a b", "xs": ["c", "d"], "d": {"values": 1, "k": "v"}, "p": 0.5}, "r:1")
    for source, text in {
        "{{ t | upper | replace(' ', '_') }}": "A_B",
        "{{ t.split()[1] }}{{ '=' * 3 }}{{ '%05.2f' % p }}": "b===00.50",
        "{{ '{:>4}|{}'.format(p, t) }}": " 0.5|a b",
        "{% for x in xs %}{{ loop.index }}/{{ loop.length }}{{ x }}{% endfor %}": "1/2c2/2d",
        "{% for k, v in d.items() %}{{ k }}{{ v }}{% endfor %}": "values1kv",
        "{{ d.values }}{{ d['k'] ~ '!' }}": "1v!",
        "{{ xs | map('upper') | join('-') }}": "C-D",
        "{% set l = [] %}{% for x in xs %}{% set _ = l.append(x) %}{% endfor %}{{ l | length }}": "2",
        "{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(t) }}": "<a b>",
        "{{ 'c' in xs }} {{ xs == ['c', 'd'] }} {{ t is string }} {{ z is defined }}": "True True True False",
        "{% set b %}{{ t }}{% endset %}{{ b }}{% filter upper %}x{% endfilter %}": "a bX",
    }.items():
        assert Template(source).render_input(row) == text
    assert row["xs"] == ["c", "d"]


def test_a_template_does_not_change_its_row():
    row = Row({"xs": ["a"]})
    assert Template("{% set _ = xs.append('b') %}{{ xs | join }}").render_input(row) == "ab"
    assert row["xs"] == ["a"]


NAMES = (
    "range dict loop namespace cycler joiner lipsum self row mask context environment resolve super caller \
varargs kwargs class import_ _ __ blocks name é 字段 l_0_x t_1 undefined missing str_join".split()
)


@pytest.mark.parametrize("name", NAMES)
def test_fields_may_have_the_names_of_jinjas_own(name):
    assert Template("{{ " + name + " }}", mask=None).render_input({name: "V", "other": "o"}) == "V"
    assert Template('{{ row["' + name + '"] }}').render_input({name: "V"}) == "V"


@pytest.mark.parametrize(
    "name", ["is-spam", "Review text", " text", "text ", "a.b", "a:b", "0", "if", "none", "x/y", "e\u0301"]
)
def test_other_names_are_read_off_the_row(name):
    row = Row({name: "V"}, "r:1")
    assert Template('{{ row["' + name + '"] }}').render_input(row) == "V"
    try:
        template = Template("{{ " + name + " }}", '{{ row["' + name + '"] }}')
        check_rows(template, [row, row], lambda text: None)
        assert template.render_input(row) == "V"
    except SoftPromptError as error:
        assert (
            f'row["{name.strip() if name.strip() != "text" else name}"]' in error.fix
            or "Unicode" in error.fix
        )


@pytest.mark.parametrize(
    "source",
    [
        "{text} It was",
        "$text",
        "${text}",
        "%(text)s",
        "<text>",
        "[text]",
        "fixed",
        "{{ 0 }}",
        "{{ 'text' }}",
        "{text!r:>3}",
    ],
)
def test_a_template_that_names_no_field_is_refused(source):
    rows = [Row({"text": "a", "0": "b", "label": "x"}), Row({"text": "c", "0": "d", "label": "y"})]
    for template in (Template(source, "{{ label }}"), Template("{{ text }}", source)):
        message = fails(lambda t=template: check_rows(t, rows))
        assert "names no field" in message
        if "text" in source and "'" not in source:
            assert "{{ text }}" in message
        if source == "{{ 0 }}":
            assert '{{ row["0"] }}' in message


@pytest.mark.parametrize(
    "source", ["{# {{ text }} #}", "{% raw %}{{ text }}{% endraw %}", "{{ '{{ text }}' }}", "{{ 'text' }}"]
)
def test_a_field_that_is_not_read_is_told_why(source):
    rows = [Row({"text": "a", "label": "x"}), Row({"text": "c", "label": "y"})]
    message = fails(lambda: check_rows(Template(source, "{{ label }}"), rows))
    assert 'written {{ row["text"] }}' in message if source == "{{ 'text' }}" else "outside" in message


def test_a_comparison_refuses_it_before_the_rows_are_split(tmp_path):
    lines = [json.dumps({"text": str(i), "label": "ab"[i % 2]}) for i in range(8)]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    template = {"input": "{text}", "target": "{{ label }}"}
    recipe = recipe_from_dict({"model": "m", "data": "d.jsonl", "template": template}, tmp_path)
    assert "names no field" in fails(lambda: all_splits(recipe, lambda texts: []))  # type: ignore[arg-type]


def test_odd_templates_are_noted():
    rows = [
        Row({"text": "a", "label": "x", "row": "1", "mask": "m"}),
        Row({"text": "a", "label": "x", "row": "2", "mask": "m"}),
    ]

    def output(*arguments, **keywords) -> str:
        found: list[str] = []
        check_rows(Template(*arguments, **keywords), rows, found.append)
        return "\n".join(found)

    assert "holds {label} as plain text" in output("{{ text }} {label}", "{{ label }}")
    assert "same input" in output("{{ text }}", "{{ row }}") and "same target" in output(
        "{{ row }}", "{{ label }}"
    )
    assert "column 'mask' is hidden" in output("{{ text }} {{ mask }}", "{{ label }}", mask="[MASK]")
    assert "same" not in output("{{ row }}", '{{ row["row"] }}')
    assert Template("{{ mask }}", mask="[MASK]").render_input(rows[0]) == "[MASK]"
    assert Template("{{ mask }}", mask="[MASK]", mask_is_known=False).render_input(rows[0]) == "m"
    assert "is no template" in fails(
        lambda: check_rows(
            Template("{{ text }}", "{{ label }}", chat=True, system="You are {{ label }}"), rows
        )
    )


def test_what_has_no_text_is_not_written():
    row = Row({"xs": ["a"], "t": "b"}, "r:1")
    assert "join" in fails(lambda: Template("{{ xs | map('upper') }}").render_input(row))
    assert "a method" in fails(lambda: Template("{{ t.upper }}").render_input(row))
    assert "the whole row" in fails(lambda: Template("{{ row }}").render_input(row))
