"""Tasks that a model, its tokenizer or the template cannot serve are refused before any row is read."""

from __future__ import annotations

from softprompt.data.task import KINDS, WRITTEN, Task
from softprompt.data.template import Template
from softprompt.data.tokens import Tokens
from softprompt.errors import SoftPromptError, unknown


def check_task(tokens: Tokens, task: Task, template: Template) -> None:
    """Raise SoftPromptError for a task of an unknown kind, and for parts that do not go together."""
    known = dict.fromkeys(kind for kinds in KINDS.values() for kind in kinds)
    if task.kind not in known:
        raise unknown("task kind", task.kind, known)
    answers = tokens.model.answers
    if task.kind not in KINDS[answers]:
        raise SoftPromptError(
            f"the model cannot do a {task.kind} task",
            why={
                "next": "it writes text, and has no head",
                "mask": "an encoder writes no text: it fills in masked words",
                "head": "it was loaded with a head of labels",
                "pooled": "it was loaded for vectors of texts",
            }[answers],
            fix=f"task.kind={KINDS[answers][0]}, or another model",
        )
    if task.labels is not None and not task.has_labels:
        raise SoftPromptError(f"labels were given for a {task.kind} task", fix="task.kind=classification")
    if task.kind == "choice" and template.choices_field is None:
        raise SoftPromptError("a choice task needs a field of choices", fix="task.choices=FIELD")
    if template.chat:
        if not getattr(tokens.tokenizer, "chat_template", None):
            raise SoftPromptError(
                "template.chat is set, but the model's tokenizer has no chat template",
                why="it is a plain language model, or its chat template was not saved with it",
                fix="template.chat=false, and write the turns into template.input",
            )
        tokens.conversation.check()
    elif template.system is not None:
        raise SoftPromptError(
            "a system text has an effect only in chat mode",
            fix="template.chat=true, or put the text into template.input",
        )
    if task.kind == "embedding" and template.chat:
        raise SoftPromptError(
            "an embedding task reads texts, and no turns of a chat",
            fix="template.chat=false; an instruction belongs into template.input",
        )
    if task.kind == "preference" and template.rejected is None:
        raise SoftPromptError("a preference task needs rejected answers", fix="template.rejected={{ FIELD }}")
    if task.kind in WRITTEN:
        tokens.check_known((tokens.end(),), "the end token")
