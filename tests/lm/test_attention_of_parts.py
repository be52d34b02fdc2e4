"""Every part of a model calls our attention, whatever the release of transformers leaves out."""

from __future__ import annotations

from transformers import PreTrainedModel

from softprompt.lm.families import tiny
from softprompt.lm.seq2seq import Seq2SeqLM


def test_stacks_with_a_copy_of_the_configuration(monkeypatch):
    """As on transformers 5.17, which sets the attention of T5 and not of its stacks."""

    def of_itself_alone(self, attn_implementation):
        self.config._attn_implementation_internal = attn_implementation

    monkeypatch.setattr(PreTrainedModel, "set_attn_implementation", of_itself_alone)
    lm = Seq2SeqLM(tiny("t5"), None, "t5")
    stacks = {
        lm.model.config._attn_implementation,
        *(p.config._attn_implementation for p in lm.model.children() if hasattr(p, "config")),
    }
    assert len(stacks) == 1 and "prefix" not in lm.spec.limits
