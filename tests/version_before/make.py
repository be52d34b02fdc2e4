"""Write one of each kind of file that the library keeps, with the version before: see README.md.

    cd /tmp/files && PYTHONPATH=OLD_CHECKOUT/src python make.py

It imports names of the old version, so it does not run with this one. The working directory is part
of the base model's name in the files, so it is a neutral folder.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from softprompt.objectives import injection_for
from softprompt.prepare import prepare
from softprompt.tuning import Hooks, Interrupted, tune
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import softprompt
from softprompt.cli import main
from softprompt.config import load_recipe
from softprompt.data.collate import collate

WORDS = ("sun", "mud", "cake", "rain", "song", "ache", "gift", "loss")
ROWS = [
    {"input": f"{word} {i}", "target": ("good", "bad")[i % 2], "style": ("joke", "fact")[i // 2 % 2]}
    for i, word in enumerate(WORDS * 2)
]
DEV = ROWS[12:]
RECIPE = """\
model: model
data: {train: train.jsonl, dev: dev.jsonl}
template: {input: "Say: {{ input }}", target: "{{ target }}"}
task: {kind: classification, labels: [good, bad]}
method: {name: prompt-tuning, length: 2}
train: {steps: 6, batch_size: 4, lr: 0.01, eval_every: 2, dtype: float32}
output: run
"""
#: Artifacts: changes of the recipe.
ARTIFACTS = {
    "prompt": ["method.placement=before"],
    "prefix": ["method.name=prefix-tuning"],
    "generated": ["method.name=generated-prompt"],
    "table": ["data.prompt_field=style", "task.kind=generation", "task.labels=null", "task.max_new_tokens=4"],
    "lora": ["base.mode=lora", "base.rank=1"],
}
COMPARE = (
    "methods=[prompt-tuning/after, zero-shot]",
    *("rates=[1e-2]", "seeds=1", "steps=2", "control=false", "serving=false", "test_fraction=0.3"),
)


def write_model(folder: Path) -> None:
    """A random Llama of 2 layers with a token for each printable ASCII character."""
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=97,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **shape,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    characters = [chr(i) for i in range(33, 127)] + ["Ġ", "Ċ"]
    raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(characters)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<end>"])
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>").save_pretrained(
        folder
    )


def write_rows() -> None:
    for name, part in (("train", ROWS[:12]), ("dev", DEV)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    Path("recipe.yaml").write_text(RECIPE)


def logits(folder: str) -> torch.Tensor:
    """Logits [2, T, V] of two dev rows, one of each style, under an artifact's prompts."""
    tuned = softprompt.open_prompt(folder)
    batch = collate(tuned.encoder.encode_rows(DEV[1:3]))
    with torch.no_grad():
        return tuned.lm.logits(batch, injection_for(tuned.lm, tuned.method, batch))


def run(*arguments: str) -> None:
    if code := main(list(arguments)):
        raise SystemExit(f"{arguments}: exit status {code}")


def interrupt() -> None:
    """Leave the checkpoint of a run that was stopped after 3 of its 6 steps."""
    steps = []
    hooks = Hooks(on_event=steps.append, should_stop=lambda: len(steps) >= 3)
    try:
        tune(prepare(load_recipe(Path("recipe.yaml"), ["output=run"])), hooks=hooks)
    except Interrupted:
        return
    raise SystemExit("the run was not interrupted")


if __name__ == "__main__":
    write_model(Path("model"))
    write_rows()
    expected = {}
    for name, changes in ARTIFACTS.items():
        run("tune", "recipe.yaml", f"output=artifacts/{name}", *changes)
        expected[name] = logits(f"artifacts/{name}")
        shutil.rmtree(f"artifacts/{name}/checkpoint", ignore_errors=True)
    run("tune", "recipe.yaml", "output=whole")
    expected["run"] = logits("whole")
    shutil.rmtree("whole")
    save_file(expected, "expected.safetensors")
    interrupt()
    run("compile", "artifacts/prompt", "artifacts/table", "--out", "compiled")
    run("compare", "recipe.yaml", *COMPARE, "--output", "comparison", "--no-report")
    for part in ("rows", "trials"):
        shutil.rmtree(f"comparison/{part}")
    Path("comparison/search.journal").unlink()
