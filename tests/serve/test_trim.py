"""Free memory is given back while a server runs, and no longer."""

from __future__ import annotations

import threading

from softprompt.serve.trim import Trimming


def test_it_trims_again_and_again_until_it_is_stopped():
    trims, twice = [], threading.Event()

    def trim() -> bool:
        trims.append(threading.current_thread())
        if len(trims) == 2:
            twice.set()
        return True

    trimming = Trimming(0.001, trim)
    trimming.start()
    assert twice.wait(30)
    trimming.stop()
    count = len(trims)
    assert trims[0] is not threading.current_thread() and not trims[0].is_alive()
    assert len(trims) == count


def test_where_nothing_can_be_given_back_it_ends():
    asked = []
    trimming = Trimming(0.001, lambda: bool(asked.append(1)))
    trimming.start()
    trimming.join(30)
    assert asked == [1] and not trimming.is_alive()
    trimming.stop()


def test_stopping_what_never_started_does_nothing():
    Trimming().stop()
