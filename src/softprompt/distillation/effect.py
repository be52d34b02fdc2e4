"""Before anything is trained, it is checked that a text has an effect that can be distilled."""

from __future__ import annotations

from dataclasses import replace

from ..data.teacher_texts import teacher_text, teacher_texts
from ..errors import SoftPromptError
from ..evaluation.evaluator import evaluator_of
from ..training.prepare import Prepared
from .ways import plain_model, with_text

LEAST_EFFECT = 0.003  # nats a token: as much comes from the rounding of bfloat16
PROBED = 32  # requests by which a text's effect is judged


def check_effect(prepared: Prepared) -> None:
    """Raise SoftPromptError where the effect of a text cannot be distinguished from rounding.

    Rounding is what the text itself is away from the teacher, which reads the same. The effect counts if its
    whole 95 % interval is above that, and above `LEAST_EFFECT`. Each of several texts is checked.
    """
    evaluator = replace(evaluator_of(prepared.recipe, prepared.lm, prepared.encoder), metrics=("kl",))
    plain, texts = plain_model(prepared), teacher_texts(prepared.recipe)
    for number, name in enumerate(prepared.prompts):
        text = texts.get(name) or str(teacher_text(prepared.recipe))
        rows = [example for example in prepared.train if example.prompt == number][:PROBED]
        effect, rounding = (
            evaluator.run(plain, shown, text_rows=0).metrics["kl"]
            for shown in (rows, with_text(prepared, text, rows))
        )
        if effect.low <= max(LEAST_EFFECT, rounding.high):
            of = f" '{name}'" if name in texts else ""
            raise SoftPromptError(
                f"there is nothing to distil: the effect of the text{of} is within noise, "
                f"{effect.value:.4f} nats a token [{effect.low:.4f}, {effect.high:.4f}]",
                why=f"on {effect.n} requests the model answers without it as with it, up to rounding "
                f"({rounding.value:.4f} [{rounding.low:.4f}, {rounding.high:.4f}]; below {LEAST_EFFECT} nats "
                "nothing is distilled)",
                fix="give requests that the text is about, or a text that changes the answers",
            )
