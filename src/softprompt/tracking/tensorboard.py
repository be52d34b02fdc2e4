"""TensorBoard reads event files; they are written to `tensorboard/` in the output folder, or to `dir`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from .base import Status, Tracker


@final
class TensorBoard(Tracker):
    """Writes scalars, the recipe as a text, and its settings beside the final scores for the HParams page."""

    package, module = "tensorboard", "tensorboard"

    def start(self, id: str | None) -> str | None:
        from torch.utils.tensorboard import SummaryWriter

        base = Path(self.config.dir) if self.config.dir else self.subject.folder
        name = self.name if self.config.dir else "tensorboard"
        if id is None:  # events of two runs in one folder would be shown as one run
            names = [name, *(f"{name}-{number}" for number in range(2, 10_000))]
            id = next(each for each in names if not any((base / each).glob("events.*")))
        self.folder = base / id
        is_new = not any(self.folder.glob("events.*"))
        self._writer = SummaryWriter(str(self.folder), **self.config.options())
        if is_new:
            self._writer.add_text("recipe", _quoted(self.subject.recipe))
            self._writer.flush()
        return id

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # a killed run keeps what it logged

    def end(self, scores: Mapping[str, float], facts: Mapping[str, str], step: int, status: Status) -> None:
        if scores:
            params = {**self.subject.params, **self.subject.tags}
            self._writer.add_hparams(params, dict(scores), run_name=".", global_step=step)
        if facts:
            lines = "\n".join(f"{name}: {value}" for name, value in facts.items())
            self._writer.add_text("result", _quoted(lines), step)
        self._writer.close()

    def table(self, name: str, columns: list[str], rows: list[list[Any]], text: str) -> None:
        self._writer.add_text(name, text)

    @property
    def where(self) -> str:
        return f"tensorboard --logdir {self.folder}"


def _quoted(text: str) -> str:
    """Indent a text, so that TensorBoard's Markdown shows it as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())
