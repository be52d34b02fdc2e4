"""An artifact goes to the hub as one commit, with a card, and comes back as it was."""

from __future__ import annotations

import getpass
import json

import pytest
from huggingface_hub import ModelCard
from tests.artifacts.hub.conftest import attached
from tests.stand_in_hub import READER, Repo

import softprompt
from softprompt.artifacts import artifact as artifacts
from softprompt.artifacts.hub import upload as uploads
from softprompt.artifacts.hub.download import FILES
from softprompt.errors import SoftPromptError

HELD = {".gitattributes", "README.md", "softprompt.json", "prompt.safetensors", "state.safetensors"}


def test_one_commit_holds_the_artifact_and_nothing_else(hub, artifact, tmp_path):
    commit = softprompt.push(artifact, "me/mood")
    repo = hub.repos["me/mood"]
    assert commit.oid == repo.branches["main"] and len(repo.commits) == 2
    assert set(repo.files()) == HELD and not repo.private
    for name in ("prompt.safetensors", "state.safetensors"):
        assert repo.files()[name] == (artifact / name).read_bytes()
    assert len(hub.blobs) == 2  # the tensors went by LFS
    loaded = artifacts.load(f"hf:me/mood@{commit.oid}")
    assert str(loaded) == f"hf:me/mood@{commit.oid}" and loaded.path.name == commit.oid
    assert loaded.manifest["files"] == artifacts.load(artifact).manifest["files"]


def test_no_path_of_this_machine_is_uploaded(hub, artifact, model_folder):
    softprompt.push(artifact, "me/mood")
    for name, content in hub.repos["me/mood"].files().items():
        for secret in (str(artifact.parent), str(model_folder), "pytest-", getpass.getuser() + "/"):
            assert secret.encode() not in content, name


def test_the_card_has_metadata_that_the_hub_reads(hub, artifact):
    softprompt.push(
        artifact,
        "me/mood",
        license="other",
        license_name="mine",
        license_link="LICENSE",
        base_model="meta/Tiny",
    )
    card = ModelCard(hub.repos["me/mood"].files()["README.md"].decode())
    about = card.data.to_dict()
    assert about["library_name"] == "softprompt" and about["pipeline_tag"] == "text-generation"
    assert about["base_model"] == "meta/Tiny" and about["base_model_relation"] == "adapter"
    assert (about["license"], about["license_name"], about["license_link"]) == ("other", "mine", "LICENSE")
    assert about["tags"] == ["softprompt", "prompt-tuning"]
    assert 'softprompt.open_prompt("hf:me/mood")' in card.text and "widget" not in about
    assert json.loads(hub.repos["me/mood"].files()["softprompt.json"])["base"]["name"] == "meta/Tiny"


def test_a_licence_from_the_web_page_is_kept(hub, artifact):
    repo = hub.repos["me/mood"] = Repo(private=False)
    repo.commit(
        "main", {"README.md": b"---\nlicense: mit\nlanguage: de\ntags: [p-tuning, mine]\n---\nhello"}, "web"
    )
    softprompt.push(artifact, "me/mood")
    about = ModelCard(repo.files()["README.md"].decode()).data.to_dict()
    assert about["license"] == "mit" and about["language"] == "de"
    assert about["tags"] == ["softprompt", "prompt-tuning", "mine"]
    softprompt.push(artifact, "me/mood", license="apache-2.0")
    assert ModelCard(repo.files()["README.md"].decode()).data.license == "apache-2.0"


def test_a_text_of_the_users_own_becomes_the_card(hub, artifact, tmp_path):
    (tmp_path / "card.md").write_text("---\nlicense: mit\n---\n# My mood\nIt is fine.\n", encoding="utf-8")
    softprompt.push(artifact, "me/mood", card=tmp_path / "card.md")
    card = ModelCard(hub.repos["me/mood"].files()["README.md"].decode())
    assert card.text.strip() == "# My mood\nIt is fine." and card.data.library_name == "softprompt"
    with pytest.raises(SoftPromptError, match="cannot read the card"):
        softprompt.push(artifact, "me/mood", card=tmp_path / "absent.md")


def test_a_second_push_replaces_the_first_which_stays_at_its_commit(hub, artifact, voices):
    first = softprompt.push(artifact, "me/mood")
    repo = hub.repos["me/mood"]
    files = {**repo.files(), "base.safetensors": b"of another artifact", "notes.txt": b"mine"}
    repo.commit("main", files, "by hand")
    softprompt.push(voices, "me/mood", commit_message="two voices")
    assert set(repo.files()) == HELD | {"notes.txt"}  # only the other artifact's weights are gone
    assert repo.messages[-1] == "two voices"
    assert artifacts.load("hf:me/mood").prompts == ("joke", "fact")
    assert artifacts.load(f"hf:me/mood@{first.oid}").prompts == ("default",)


def test_a_branch_is_made_and_a_tag_is_refused(hub, artifact, voices):
    softprompt.push(artifact, "me/mood")
    repo = hub.repos["me/mood"]
    softprompt.push(voices, "me/mood", revision="two")
    softprompt.push(voices, "hf:me/mood@two")  # again, with nothing new
    assert artifacts.load("hf:me/mood@two").prompts == ("joke", "fact")
    assert artifacts.load("hf:me/mood").prompts == ("default",)
    assert "hf:me/mood@two" in repo.files("two")["README.md"].decode()
    repo.tags["v1"] = repo.branches["main"]
    with pytest.raises(SoftPromptError, match="'v1' is a tag"):
        softprompt.push(voices, "me/mood", revision="v1")
    assert artifacts.load("hf:me/mood@v1").prompts == ("default",)


def test_a_new_branch_of_a_new_repository(hub, artifact):
    softprompt.push(artifact, "me/mood", revision="trial", private=True)
    assert set(hub.repos["me/mood"].files()) == {".gitattributes"}
    assert hub.repos["me/mood"].private and artifacts.load("hf:me/mood@trial").prompts == ("default",)


def test_the_owner_is_the_account_where_none_is_given(hub, artifact):
    softprompt.push(artifact, "mood")
    assert set(hub.repos) == {"me/mood"}


def test_private_does_not_upload_to_a_public_repository(hub, artifact):
    softprompt.push(artifact, "me/mood")
    before = dict(hub.repos["me/mood"].commits)
    with pytest.raises(SoftPromptError, match="me/mood is public"):
        softprompt.push(artifact, "me/mood", private=True)
    assert hub.repos["me/mood"].commits == before


def test_an_attached_model_is_pushed_and_attached_again(hub, model_folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = attached(model_folder, "joke", "fact")
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = model(ids, prompts="fact").logits
    model.push_to_hub("me/voices", private=True)
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    again = softprompt.SoftPromptModel.from_pretrained(base, "hf:me/voices", tokenizer)
    assert torch.equal(again(ids, prompts="fact").logits, expected)
    assert hub.repos["me/voices"].private and set(hub.repos["me/voices"].files()) == HELD
    assert b'"output": "voices"' in hub.repos["me/voices"].files()["softprompt.json"]


def test_save_pretrained_pushes_when_it_is_asked_to(hub, model_folder, tmp_path):
    attached(model_folder).save_pretrained(
        tmp_path / "mood", push_to_hub=True, private=True, safe_serialization=True
    )
    assert hub.repos["me/mood"].private and set(hub.repos["me/mood"].files()) == HELD


def test_an_opened_prompt_is_pushed(hub, artifact, llama):
    tuned = softprompt.open_prompt(artifact, llama, other_base=True)
    commit = tuned.push_to_hub("me/mood")
    again = softprompt.open_prompt(f"hf:me/mood@{commit.oid}", llama, other_base=True)
    assert again.generate("hello", max_new_tokens=4) == tuned.generate("hello", max_new_tokens=4)
    again.push_to_hub("me/copy")  # from the hub to the hub
    assert set(hub.repos["me/copy"].files()) == HELD


def test_an_interrupted_upload_leaves_the_repository_as_it_was(hub, artifact, voices, monkeypatch):
    softprompt.push(artifact, "me/mood")
    before = dict(hub.repos["me/mood"].commits)
    hub.broken = {"PUT /lfs/": 403}
    with pytest.raises(SoftPromptError) as error:
        softprompt.push(voices, "me/mood")
    assert "Nothing was uploaded" in error.value.why
    hub.broken = {"POST /api/models/.*/commit/": 500}
    with pytest.raises(SoftPromptError, match="cannot upload to hf:me/mood") as error:
        softprompt.push(voices, "me/mood")
    assert "status 500" in error.value.why and "again" in error.value.fix
    assert hub.repos["me/mood"].commits == before


def test_a_change_of_the_repository_meanwhile_is_noticed(hub, artifact, voices):
    softprompt.push(artifact, "me/mood")
    account, upload = uploads.Account(), uploads.prepare(voices, "me/mood")
    seen = account.look(upload)
    hub.repos["me/mood"].commit("main", {"README.md": b"other"}, "somebody else")
    with pytest.raises(SoftPromptError) as error:
        account.send(*seen)
    assert "changed meanwhile" in error.value.why
    assert hub.repos["me/mood"].files() == {"README.md": b"other"}


@pytest.mark.parametrize(
    ("id", "token", "why"),
    [
        ("me/mood", "hf_wrong", "does not accept the token"),
        ("me/mood", READER, "may not write to 'me'"),
        ("you/mood", None, "may not write to 'you'"),
    ],
)
def test_a_token_without_the_right_is_one_error(hub, artifact, id, token, why):
    with pytest.raises(SoftPromptError, match=f"cannot upload to hf:{id}") as error:
        softprompt.push(artifact, id, token=token)
    assert why in error.value.why and "token" in error.value.fix and not hub.repos
    assert "hf_" not in str(error.value).replace("hf:", "")


def test_no_token_is_one_error_before_anything_is_sent(hub, artifact, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(SoftPromptError, match="no token") as error:
        softprompt.push(artifact, "me/mood")
    assert "hf auth login" in error.value.fix and "HF_TOKEN" in error.value.fix and not hub.requests


def test_a_licence_that_the_hub_does_not_know_is_one_error(hub, artifact):
    with pytest.raises(SoftPromptError) as error:
        softprompt.push(artifact, "me/mood", license="my-own")
    assert "must be one of mit" in error.value.why and "licence" in error.value.fix
    assert not hub.repos


def test_a_damaged_artifact_is_not_uploaded(hub, artifact, tmp_path):
    import shutil

    shutil.copytree(artifact, tmp_path / "mood")
    (tmp_path / "mood/prompt.safetensors").write_bytes(b"cut")
    with pytest.raises(SoftPromptError, match="damaged"):
        softprompt.push(tmp_path / "mood", "me/mood")
    assert not hub.requests
    assert set(FILES) >= set(artifacts.load(artifact).manifest["files"])


def test_the_card_of_a_long_table_lists_some_names(hub, model_folder, tmp_path):
    attached(model_folder, *(f"voice-{i}" for i in range(300))).save_pretrained(tmp_path / "many")
    softprompt.push(tmp_path / "many", "me/many")
    card = hub.repos["me/many"].files()["README.md"].decode()
    assert "voice-19, … 280 more" in card and "voice-20" not in card
    assert "--prompt voice-0" in card and "prompt='voice-0'" in card
