"""Training steps are reported: of one prompt its loss and dev scores, of several prompts the best so far."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

from .._system.progress import task
from ..evaluation.records import DevScore
from .loop import Event

FEW_DEV_ROWS = 20


@contextlib.contextmanager
def following_steps(names: Sequence[str]) -> Iterator[Callable[[Event], None]]:
    """Open a task for the steps of all runs; call the function that it yields with every event."""
    steps: dict[int, int] = {}
    taken = 0
    last = best = ""
    top: DevScore | None = None
    events = 0
    with task("step") as steps_task:

        def follow(event: Event) -> None:
            nonlocal last, best, top, events, taken
            events += 1
            taken += event.step - steps.get(event.learner, 0)
            steps[event.learner] = event.step
            if event.dev is not None:
                last = f"dev {event.dev.name} {_number(event.dev.shown)}"
            if event.dev is not None and (top is None or event.dev.key > top.key):
                by = f"by {names[event.learner]}" if len(names) > 1 else f"at {event.step}"
                top, best = event.dev, f"best {_number(event.dev.shown)} {by}"
            facts = [f"loss {_number(event.loss)}", last] if len(names) == 1 else []
            steps_task.at(
                taken,
                total=event.steps * len(names),
                facts=[fact for fact in (*facts, best) if fact],
                important=event.dev is not None and len(names) == 1,
                # the pace is unknown before the second step
                left=event.seconds_left if events > len(names) else None,
            )

        yield follow


def few_dev_rows(rows: int) -> str:
    """Write the note on a small dev set; empty where it is large enough."""
    if rows >= FEW_DEV_ROWS:
        return ""
    # half the width of a 95 % interval of a share that is one half
    off = min(50, round(100 * 0.98 / math.sqrt(max(1, rows))))
    little, them = ("row tells", "it") if rows == 1 else ("rows tell", "them")
    return (
        f"note: {rows} dev {little} little: scores measured on {them} are uncertain, an accuracy by about "
        f"{off} points. More: data.dev=FILE, or a larger data.dev_fraction"
    )


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(value)
