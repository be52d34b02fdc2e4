"""`init` writes what `check` accepts; `check` shows where vectors go and what a run costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from softprompt.config.load import load_recipe

from .conftest import write_rows

TASKS = ("classification", "generation", "choice", "embedding")


@pytest.mark.parametrize("task", TASKS)
def test_init_writes_a_recipe_that_check_accepts(run, tmp_path, model_folder, task):
    output = run("init", tmp_path / "first", "--task", task)
    assert output.code == 0 and f"softprompt check {tmp_path / 'first' / 'recipe.yaml'}" in output.out
    recipe = load_recipe(tmp_path / "first" / "recipe.yaml")
    assert recipe.task.kind == task
    options = [f"model={model_folder}", "data.max_input_tokens=150"]
    options += ["task.pooling=last"] if task == "embedding" else []  # the tiny model is a decoder
    output = run("check", tmp_path / "first" / "recipe.yaml", *options)
    assert output.code == 0, output.err


def test_init_writes_a_recipe_for_embedding_rows(run, tmp_path, bert_folder):
    words = [f"w{i} w{i + 1}" for i in range(30)]
    pairs = [{"anchor": w, "positive": f"{w} w60", "negative": f"w61 {w}"} for w in words]
    output = run("init", tmp_path, "--rows", write_rows(tmp_path / "pairs.jsonl", pairs), "--json")
    assert output.json["task"] == "embedding"
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert (recipe.model.id, recipe.task.negatives) == ("minilm", "negative")
    assert (recipe.template.input, recipe.template.target) == ("{{ anchor }}", "{{ positive }}")
    output = run("check", tmp_path / "recipe.yaml", f"model={bert_folder}")
    assert output.code == 0, output.err


def test_init_refuses_to_overwrite(run, tmp_path):
    assert run("init", tmp_path).code == 0
    (tmp_path / "data" / "train.jsonl").write_text("mine\n")
    output = run("init", tmp_path, "--task", "choice", "--json")
    assert output.code == 1 and "--force" in output.json["error"]["fix"]
    assert (tmp_path / "data" / "train.jsonl").read_text() == "mine\n"
    assert run("init", tmp_path, "--force").code == 0
    assert (tmp_path / "data" / "train.jsonl").read_text() != "mine\n"


def test_init_json(run, tmp_path):
    found = run("init", tmp_path, "--json").json
    assert found["recipe"] == str(tmp_path / "recipe.yaml") and found["next"].startswith("softprompt check")


MARKERS = {
    ("prompt-tuning", "after"): "S|a|y|:| |s|u|n| |0|[soft×3]| |g|o|o|d",
    ("prompt-tuning", "before"): "[soft×3]|S|a|y|:| |s|u|n| |0| |g|o|o|d",
    ("prefix-tuning", "after"): "S|a|y|:| |s|u|n| |[prefix×3 in 3 layers]|0| |g|o|o|d",
    ("prefix-tuning", "before"): "[prefix×3 in 3 layers]|S|a|y|:| |s|u|n| |0| |g|o|o|d",
}


@pytest.mark.parametrize(("method", "placement"), MARKERS)
def test_check_shows_where_vectors_go(run, recipe, method, placement):
    output = run("check", recipe, f"method={method}", f"placement={placement}", "length=3")
    assert output.code == 0, output.err
    assert f"  {MARKERS[method, placement]}\n" in output.out
    assert f"plan: {'full' if placement == 'before' else 'cached-ram'}" in output.out


def test_check_writes_nothing_and_names_the_next_command(run, recipe, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    output = run("check", recipe, "steps=7")
    assert output.code == 0 and sorted(tmp_path.rglob("*")) == before
    assert output.out.rstrip().endswith(f"softprompt tune {recipe} steps=7")


def test_check_says_where_a_cache_on_disk_lies(run, recipe, tmp_path):
    folder = tmp_path / "kv"
    options = ("cache=disk", f"cache_folder={folder}", "cache_disk_mb=50")
    output = run("check", recipe, *options)
    assert (
        output.code == 0
        and "plan: cached-disk" in output.out
        and "disk budget of all caches: 50 MB" in output.out
    )
    assert (
        f"folder of the cache: {folder}" in output.out and "cached once" in output.out and not folder.exists()
    )
    first = run("check", recipe, *options, "--json").json
    assert run("tune", recipe, *options).code == 0
    again = run("check", recipe, *options, "--json").json
    assert [found["plan"]["stored"] for found in (first, again)] == [False, True]
    assert again["plan"]["folder"] == first["plan"]["folder"] and Path(again["plan"]["folder"]).is_dir()
    assert first["price"]["cache_seconds"] > 0 == again["price"]["cache_seconds"]
    held = sum(file.stat().st_size for file in Path(again["plan"]["folder"]).glob("*.safetensors"))
    assert 0 <= held - again["plan"]["cache_bytes"] < 5000  # the header


def test_check_json_counts_and_prices(run, recipe, tmp_path):
    with open(tmp_path / "train.jsonl", "a", encoding="utf-8") as file:
        file.write('{"input": "sun 0", "target": "good"}\n' * 2)  # like the first row
        file.write(
            '{"input": " ", "target": "bad"}\n{"input": "song 12", "target": "good"}\n'
        )  # blank; in dev
    found = run("check", recipe, "max_input_tokens=9", "steps=6", "eval_every=3", "--json").json
    rows = found["rows"]
    assert (rows["rows"], rows["dev_rows"], rows["prompts"]) == (16, 4, {"default": 16})
    assert rows["labels"] == {"good": 9, "bad": 7}
    assert (rows["empty"], rows["duplicates"], rows["seen_in_dev"]) == (1, 2, 1)
    assert rows["truncated"] > 0 and rows["inputs"]["longest"] == 9
    price = found["price"]
    assert price["trained_parameters"] == 3 * 32 and price["artifact_bytes"] == 4 * 3 * 32
    assert price["steps"] == 6 and price["evaluations"] == 2 + 2 and price["step_seconds"] > 0
    parts = price["cache_seconds"] + 6 * price["step_seconds"] + 4 * price["evaluation_seconds"]
    assert price["seconds"] == pytest.approx(parts)
    assert found["plan"]["mode"] == "cached-ram" and len(found["examples"]) == 3
    assert found["examples"][0]["pieces"][-2] == {"part": "soft", "tokens": [], "vectors": 3, "layers": 0}


def test_check_shows_a_row_of_each_prompt(run, recipe, tmp_path):
    found = run("check", recipe, "data.prompt_field=style", "--json").json
    assert [e["prompt"] for e in found["examples"]][:2] == ["joke", "fact"]
    assert found["rows"]["prompts"] == {"joke": 6, "fact": 6}


def test_measuring_leaves_the_method_as_it_was(recipe):
    from softprompt.training.estimate import measure
    from softprompt.training.prepare import prepare

    for override in ("method=prefix-tuning", "base=lora"):
        prepared = prepare(load_recipe(recipe, [override, "train.lr=0.5"]))
        trained = [*prepared.method.parameters(), *(p for p in prepared.lm.model.parameters())]
        before = [p.detach().clone() for p in trained]
        assert measure(prepared).step_seconds > 0
        assert all(a.equal(b) and b.grad is None for a, b in zip(before, trained, strict=True))


def test_predicted_artifact_bytes_are_those_saved(recipe, tuned):
    from softprompt.artifacts import artifact
    from softprompt.training.prepare import prepare
    from softprompt.training.trained import artifact_bytes

    prepared = prepare(load_recipe(recipe))
    predicted = artifact_bytes(prepared.lm, prepared.method)
    assert 0 <= artifact.load(tuned).bytes - predicted < 500  # the header


def test_a_start_from_another_base_model_says_how_much_came_along(run, recipe, tuned, tmp_path, new_lm):
    wide = new_lm("llama", seed=7, hidden_size=48, intermediate_size=64)
    wide.model.save_pretrained(tmp_path / "wide")
    wide.tokenizer.save_pretrained(tmp_path / "wide")
    start = [f"model={tmp_path / 'wide'}", "method.init=artifact", f"method.artifact={tuned}"]
    refused = run("check", recipe, *start)
    assert refused.code == 1 and "another base model" in refused.err and "transfer=nearest" in refused.err
    carried = run("check", recipe, *start, "transfer=linear", "--json").json["carried"]
    assert carried["tokens"] == 97 and carried["explained"] < 1 and carried["transfer"] == "linear"
    output = run("tune", recipe, *start, "transfer=nearest", "--json")
    assert output.json["carried"]["transfer"] == "nearest" and "shared tokens" in output.err


def test_an_artifact_without_vectors_is_no_start(run, recipe, tmp_path):
    place = tmp_path / "weights"
    assert run("tune", recipe, "method=none", "base=lora", "base.lr=0.05", f"output={place}").code == 0
    for method in ("prompt-tuning", "prefix-tuning"):
        refused = run("check", recipe, f"method={method}", "method.init=artifact", f"method.artifact={place}")
        assert refused.code == 1 and "holds no vectors" in refused.err, refused.err
        assert "only weights of the base model" in refused.err and "it is a" not in refused.err


def test_check_says_what_the_chat_template_does(run, recipe):
    import json as jsonlib
    import shutil

    import yaml

    read = yaml.safe_load(recipe.read_text())
    base = recipe.parent / "base"
    shutil.copytree(read["model"], base)
    config = base / "tokenizer_config.json"
    template = (
        "{{ strftime_now('%Y') }}{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}"
        "{% if add_generation_prompt %}{% if enable_thinking %}<think>{% endif %}{% endif %}"
    )
    config.write_text(jsonlib.dumps({**jsonlib.loads(config.read_text()), "chat_template": template}))
    how = [f"model={base}", "template.chat=true"]
    output = run("check", recipe, *how, "template.chat_options={enable_thinking: true}")
    assert output.code == 0, output.err
    assert "2|0|2|4|" in output.out and "S|a|y|:" in output.out
    assert "enable_thinking: false} closes it" in output.out and "it is 2024-07-26 on every day" in output.out
    output = run("check", recipe, *how, "template.chat_options.enable=true")
    assert output.code == 1 and "did you mean 'enable_thinking'" in output.err
    output = run("check", recipe, "template.chat_date=2025-01-01")
    assert output.code == 1 and "only with `chat: true`" in output.err
