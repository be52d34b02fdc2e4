"""What is told of training steps: of one prompt its loss and dev scores, of several the best so far."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

from .progress import task
from .train import DevScore, Event


@contextlib.contextmanager
def following_steps(names: Sequence[str]) -> Iterator[Callable[[Event], None]]:
    """A task of the steps of all runs; what it gives is to be called with every event."""
    steps: dict[int, int] = {}
    last = best = ""
    top: DevScore | None = None
    events = 0
    with task("step") as own:

        def follow(event: Event) -> None:
            nonlocal last, best, top, events
            events += 1
            steps[event.learner] = event.step
            if event.dev is not None:
                last = f"dev {event.dev.name} {_number(event.dev.shown)}"
            if event.dev is not None and (top is None or event.dev.key > top.key):
                by = f"by {names[event.learner]}" if len(names) > 1 else f"at {event.step}"
                top, best = event.dev, f"best {_number(event.dev.shown)} {by}"
            facts = [f"loss {_number(event.loss)}", last] if len(names) == 1 else []
            own.at(
                sum(steps.values()),
                total=event.steps * len(names),
                facts=[fact for fact in (*facts, best) if fact],
                important=event.dev is not None and len(names) == 1,
                # nothing is known of the pace before the second step
                left=event.seconds_left if events > len(names) else None,
            )

        yield follow


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(value)
