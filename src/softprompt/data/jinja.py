"""Templates of rows are run in a Jinja2 sandbox with fields and filters, no globals, and limited work.

A template cannot reach Python's objects (Jinja's sandbox), and it always ends (`data.template_limits`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import SandboxedEnvironment, SandboxedFormatter, modifies_known_mutable

from softprompt.data import template_limits
from softprompt.data.counting import COMPARED, COUNTED, JOINED, Counting
from softprompt.data.values import Unusable


class NullError(Exception):
    """A null value reached the text."""


class NotTextError(Exception):
    """A value without a text reached the text."""


class Fields(dict[str, Any]):
    """The row is this mapping in templates, under the name `row`."""


class RowEnvironment(SandboxedEnvironment):
    """With `whole`, lists and mappings may be written as they are (in inputs, not in targets)."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, whole: bool) -> None:
        super().__init__(
            undefined=jinja2.StrictUndefined,
            finalize=jinja2.pass_context(lambda context, value: self.written(value)),
            keep_trailing_newline=True,
            autoescape=False,
            optimized=False,  # constants would be computed before there is a budget
        )
        self.whole = whole
        self.globals.clear()  # `range`, `dict`, … would hide that a field of that name is missing
        self.filters = {name: _bounded(name, function) for name, function in self.filters.items()}
        self.filters["attr"] = jinja2.pass_environment(lambda env, value, name: env.getattr(value, name))
        self.filters |= {
            COUNTED: template_limits.counted,
            JOINED: _join,
            COMPARED: template_limits.compared,
        }
        self.tests = {name: _bounded(name, function) for name, function in self.tests.items()}

    def compiled(self, tree: nodes.Template) -> jinja2.Template:
        """Compile a parsed template (which is changed) so that its loops are counted."""
        Counting(self).visit(tree)
        return self.from_string(tree)  # type: ignore[arg-type]

    def written(self, value: Any) -> Any:
        """Check and count a value that is about to become text."""
        if isinstance(value, str):
            template_limits.write(len(value))
        elif value is None:  # Jinja would write the word "None"
            raise NullError
        elif isinstance(value, Unusable):
            raise value.error()
        elif isinstance(value, Fields):
            raise NotTextError("the whole row")
        elif isinstance(value, (list, tuple, Mapping)):
            if not self.whole:
                kind = "an object" if isinstance(value, Mapping) else "a list"
                raise NotTextError(f"{kind} ({_glimpse(value)})")
            template_limits.measure(value)
            _check_items(value)
        elif not isinstance(value, (int, float, Undefined)):
            raise NotTextError(_kind(value))
        return value

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        template_limits.binary(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        template_limits.step()
        template_limits.measure([*args, *kwargs.values()])
        template_limits.method(
            getattr(obj, "__self__", None), getattr(obj, "__name__", ""), (*args, *kwargs.values())
        )
        result = super().call(context, obj, *args, **kwargs)
        return _counted_result(result)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]  # `answers.values` is the field, where there is one of that name
        if isinstance(obj, str) and attribute in ("format", "format_map"):
            return functools.partial(_format, self, obj, attribute == "format_map")
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, str) and argument in ("format", "format_map"):
            return self.getattr(obj, argument)
        return super().getitem(obj, template_limits.compared(argument))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        # only `append` is allowed: a list that grows by more than an item at once is not counted
        grows = attr != "append" and modifies_known_mutable(obj, attr)
        return not grows and super().is_safe_attribute(obj, attr, value)


def _join(items: list[Any]) -> str:
    template_limits.step()
    template_limits.measure(items)
    return "".join(map(str, items))


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter so that its input and output are counted, and too large results are refused."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        passed = 1 if hasattr(function, "jinja_pass_arg") else 0
        value, *rest = args[passed:]
        template_limits.step()
        template_limits.measure([value, *rest, *kwargs.values()])
        _check_filter(name, value, [*rest, *kwargs.values()])
        return _counted_result(function(*args, **kwargs))

    return run


def _counted_result(result: Any) -> Any:
    if isinstance(result, (str, bytes, list, tuple)):
        template_limits.write(len(result))
    return result


def _check_filter(name: str, value: Any, arguments: list[Any]) -> None:
    size = max((item for item in arguments if isinstance(item, int)), default=0)
    if name in ("batch", "center", "slice"):
        template_limits.write(max(0, size))
    elif name in ("indent", "tojson", "wordwrap"):
        texts = max((len(item) for item in arguments if isinstance(item, str)), default=0)
        pieces = (
            len(value)
            if name != "indent" and isinstance(value, (str, list, dict))
            else str(value).count("\n") + 1
        )
        template_limits.write(pieces * max(texts, size if name != "wordwrap" else 0))
    elif name == "replace" and len(arguments) > 1:
        template_limits.replacing(str(value), str(arguments[0]), str(arguments[1]))
    elif name == "join" and isinstance(value, (list, tuple)) and arguments:
        template_limits.write(len(value) * len(str(arguments[0])))
    elif name == "format":
        template_limits.formatting(str(value), arguments)
    elif name == "round" and size > 300:
        raise template_limits.LimitError("it rounds to more than 300 places")
    elif name in ("striptags", "urlize") and len(str(value)) > template_limits.MAX_MARKUP:
        raise template_limits.LimitError(
            f"it gives more than {template_limits.MAX_MARKUP:,} characters to the filter {name}"
        )


class _Formatter(SandboxedFormatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        template_limits.spec(format_spec)
        text = super().format_field(value, format_spec)
        template_limits.write(len(text))
        return text


def _format(environment: RowEnvironment, text: str, is_map: bool, /, *args: Any, **kwargs: Any) -> str:
    template_limits.write(len(text))
    if is_map:
        args, kwargs = (), args[0]
    return _Formatter(environment).vformat(text, args, kwargs)


def _check_items(value: Any) -> None:
    if isinstance(value, Unusable):
        raise value.error()
    if isinstance(value, (list, tuple, Mapping)):
        for item in value.values() if isinstance(value, Mapping) else value:
            _check_items(item)
    elif value is not None and not isinstance(value, (str, int, float)):
        raise NotTextError(_kind(value))


def _glimpse(value: Any) -> str:
    template_limits.measure(value)
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _kind(value: Any) -> str:
    name = type(value).__name__
    if name == "generator":
        return "a sequence that is not joined (write … | join(' ') behind it)"
    return f"a {'method' if callable(value) else name}, which has no text"


@functools.lru_cache(maxsize=2)
def environment(whole: bool) -> RowEnvironment:
    """Return the environment for inputs (`whole`), or for targets."""
    return RowEnvironment(whole)
