"""`softprompt.compare_methods` is defined here: methods are compared by a call in Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import methods
from .._system.display import shown
from .._system.quiet import quietly
from ..config.load import Recipe, load_recipe, recipe_from_dict
from ..data.row_files import write_rows
from ..errors import SoftPromptError
from ..methods import from_module
from ..methods.typed_options import written_out
from ..tuned import Rows
from .experiment import Hooks as ComparisonHooks
from .experiment import compare
from .report.read import comparison
from .report.schema import Comparison
from .running.executors import Serial


@quietly
def compare_methods(
    recipe: Recipe | str | Path | Mapping[str, Any],
    folder: str | Path | None = None,
    *,
    rows: Rows | None = None,
    dev: Rows | None = None,
    test: Rows | None = None,
    workers: int | None = None,
    hooks: ComparisonHooks | None = None,
    report: bool = True,
    progress: bool | None = None,
) -> Comparison:
    """Compare methods on a recipe's rows: its `compare` section says which, and how (docs/compare.md).

    `recipe` is a file, a mapping, or a `Recipe`. Trials that were run already are not run again. The result
    is the comparison as `softprompt.compare.report` reads it. (`softprompt.compare` is the package that this
    runs.) `rows`, `dev` and `test` are rows in memory in place of the recipe's; they are written into the
    folder, because worker processes read them. `folder` is where the comparison is kept (default: that of the
    recipe), `workers` the number of processes (default: one for two cores), and `hooks` are called along the
    way. Without `report` no page is written. `progress` is as in `tune`. Raises SoftPromptError for a recipe
    or rows that cannot be compared; a trial that fails is reported in the result.
    """
    if not isinstance(recipe, Recipe | Mapping | str | Path):
        raise SoftPromptError(
            f"a comparison needs a recipe, not {type(recipe).__name__}",
            fix="give a file, a mapping, or a Recipe (docs/compare.md)",
        )
    in_memory = {"train": rows, "dev": dev, "test": test}
    if isinstance(recipe, Recipe):
        read = recipe
    elif isinstance(recipe, Mapping):
        tree = written_out(from_module.named(recipe))
        if rows is not None and "data" not in tree:
            tree["data"] = "rows in memory"
        read = recipe_from_dict(tree, method_option_names=methods.option_names())
    else:
        read = load_recipe(recipe, method_option_names=methods.option_names())
    source = str(recipe) if isinstance(recipe, (str, Path)) else ""
    place = Path(folder or read.compare.output or f"{read.output}-compare")
    files = {
        f"data.{split}": str(write_rows(place / "given", part, split, first=read.data.limit))
        for split, part in in_memory.items()
        if part is not None
    }
    if files:
        read = read.with_settings(files, method_option_names=methods.option_names())
    # workers are other processes, which do not know a module of this one
    here = Serial() if any(map(from_module.is_for_this_process, _compared(read))) else None
    with shown(progress):
        done = compare(read, folder, workers=workers, hooks=hooks, report=report, source=source, on=here)
    return comparison(done.folder)


def _compared(recipe: Recipe) -> list[Any]:
    """Return the names of the methods that a recipe compares, as far as it names them."""
    named = recipe.compare.methods or []
    inside = [each.get("method") for each in named.values()] if isinstance(named, dict) else []
    return [recipe.method.name, *named, *inside]
