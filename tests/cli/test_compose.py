"""`softprompt compose` from the shell."""

from __future__ import annotations

from softprompt.artifacts import artifact as artifacts


def test_compose_and_use(run, chatty, tuned, tmp_path):
    out = tmp_path / "both"
    output = run("compose", "--concat", f"{chatty}:joke", tuned, "--out", out, "--json")
    assert output.code == 0 and output.json["operation"] == "concatenate" and output.json["length"] == 6
    assert [source["prompt"] for source in output.json["sources"]] == ["joke", "default"]
    assert "note: " in output.err and "another template or task" in output.err
    assert run("generate", out, "sun").code == 0
    assert run("inspect", out).out.startswith("composition for")
    shown = run("compose", "--average", f"{chatty}:joke", f"{chatty}:fact", "--out", tmp_path / "mean")
    assert shown.code == 0 and "note: " not in shown.err
    assert artifacts.load(tmp_path / "mean").manifest["options"]["operation"] == "average"
    assert f"softprompt generate {tmp_path / 'mean'}" in shown.out
    assert (
        run("compose", "--scale", "0.5", tuned, "--out", tmp_path / "mild", "--json").json["strength"] == 0.5
    )


def test_compose_is_told_one_thing(run, tuned, chatty, tmp_path):
    for arguments in ([], ["--concat", "--average"], ["--concat", "--scale", "1"]):
        assert run("compose", tuned, tuned, "--out", tmp_path / "out", *arguments).code == 2
    for arguments, words in (
        (["--average", tuned], "takes 2 prompts or more"),
        (["--scale", "1", tuned, tuned], "takes one prompt, not 2"),
        (["--scale", "-1", tuned], "no meaning"),
        (["--concat", chatty, tuned], "holds 2 prompts"),
    ):
        output = run("compose", *arguments, "--out", tmp_path / "out")
        assert output.code == 1 and output.out == "" and words in output.err and "fix:" in output.err
    assert not (tmp_path / "out").exists()
