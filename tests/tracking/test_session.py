"""A run in its journal and in real trackers: what they hold is read back by their own libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from softprompt.config.sections.track import TrackConfig
from softprompt.tracking.base import Subject
from softprompt.tracking.journal import FILE, read
from softprompt.tracking.session import Session

STEPS = [
    {"step": n, "loss": 1 / n, "lr": 0.5, "tokens_per_second": 100.0, "seconds": 0.1 * n} for n in range(1, 5)
]
STEPS[3]["dev"] = {"accuracy": 0.75, "macro_f1": 0.5}
SCORES = {"best/accuracy": 0.75}
FACTS = {"stopped": "finished", "artifact_digest": "ab" * 32}
PARAMS = {"method.name": "prompt-tuning", "train.lr": 0.5, "train.steps": 4}


def subject(folder: Path, **changes) -> Subject:
    folder.mkdir(exist_ok=True)
    return Subject(folder, changes.pop("name", "mood"), PARAMS, "method: prompt-tuning\n", **changes)


def track(folder: Path, trackers, *, until=4, after=0, end=True, anew=False, run="r") -> Session:
    """Track steps `after` + 1 to `until`; without `end`, the process is killed there."""
    session = Session(subject(folder), TrackConfig.model_validate(trackers), run, anew=anew)
    session.begin({"recipe": PARAMS}, after)
    for line in STEPS[after:until]:
        session.step(line)
    if end:
        session.end({"stopped": "finished"}, SCORES, FACTS, "finished")
    else:
        for feed in session._feeds:  # what was sent is written; nothing else is
            feed._calls.put(None)
            feed._thread.join()
    return session


def steps_of(folder: Path) -> list[int]:
    return [line["step"] for line in read(folder / FILE) if line["kind"] == "step"]


# --- TensorBoard ---


def events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = EventAccumulator(str(folder))
    result.Reload()
    return result


def text(accumulator, name: str) -> str:
    return accumulator.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()


def test_tensorboard_holds_every_step_the_recipe_and_the_result(tmp_path):
    track(tmp_path / "out", "tensorboard")
    result = events(tmp_path / "out" / "tensorboard")
    losses = [(event.step, event.value) for event in result.Scalars("train/loss")]
    assert losses == [(line["step"], pytest.approx(line["loss"])) for line in STEPS]
    assert [event.value for event in result.Scalars("train/tokens_per_second")] == [100.0] * 4
    assert [(event.step, event.value) for event in result.Scalars("dev/accuracy")] == [(4, 0.75)]
    assert [event.value for event in result.Scalars("best/accuracy")] == [0.75]
    assert "method: prompt-tuning" in text(result, "recipe")
    assert FACTS["artifact_digest"] in text(result, "result")


def test_tensorboard_shows_settings_beside_scores(tmp_path):
    """The HParams page reads the recipe's settings from the same folder."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    track(tmp_path / "out", "tensorboard")
    metadata = events(tmp_path / "out" / "tensorboard").summary_metadata
    tag = "_hparams_/session_start_info"
    data = plugin_data_pb2.HParamsPluginData.FromString(metadata[tag].plugin_data.content)
    settings = data.session_start_info.hparams
    assert settings["train.lr"].number_value == 0.5
    assert settings["method.name"].string_value == "prompt-tuning"


def test_a_run_that_starts_anew_has_a_folder_of_its_own(tmp_path):
    track(tmp_path / "out", "tensorboard")
    track(tmp_path / "out", "tensorboard", anew=True)
    assert len(events(tmp_path / "out" / "tensorboard").Scalars("train/loss")) == 4
    assert len(events(tmp_path / "out" / "tensorboard-2").Scalars("train/loss")) == 4


# --- MLflow ---


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """One store for all tests, since making its tables takes seconds; each test has a project in it."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


def runs_of(uri: str, project: str):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(project)
    return client, client.search_runs([experiment.experiment_id])


def test_mlflow_holds_every_step_the_recipe_and_the_result(tmp_path, store, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the files of a run in this store are written
    track(tmp_path / "out", {"mlflow": {"uri": store, "project": "whole"}})
    client, (run,) = runs_of(store, "whole")
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [
        (line["step"], line["loss"]) for line in STEPS
    ]
    assert run.data.metrics["dev/macro_f1"] == 0.5 and run.data.metrics["best/accuracy"] == 0.75
    assert run.data.params == {key: str(value) for key, value in PARAMS.items()}
    assert run.data.tags["artifact_digest"] == FACTS["artifact_digest"]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "mood")
    recipe = Path(client.download_artifacts(run.info.run_id, "recipe.yaml", str(tmp_path)))
    assert recipe.read_text() == "method: prompt-tuning\n"


def test_the_users_own_mlflow_run_is_left_alone(tmp_path, store, monkeypatch):
    import mlflow

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(store)
    try:
        with mlflow.start_run() as own:
            track(tmp_path / "out", {"mlflow": {"project": "beside"}})
            assert mlflow.active_run().info.run_id == own.info.run_id
        assert mlflow.get_run(own.info.run_id).data.metrics == {}
        assert len(runs_of(store, "beside")[1]) == 1
    finally:
        mlflow.set_tracking_uri(None)


# --- trackio and wandb, in processes of their own: they read the environment when they are imported ---


def in_process(code: str, folder: Path, **environment: str) -> str:
    """Run code in a process with this module as `t`; return what it prints."""
    import os

    setting = {**os.environ, "TRACKIO_DIR": str(folder / "trackio"), "WANDB_MODE": "offline"}
    start = (
        f"from pathlib import Path; import tests.tracking.test_session as t; folder = Path({str(folder)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + code],
        env={**setting, "PYTHONPATH": ".:src:examples", **environment},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


KILLED = """
import os
t.track(folder / "out", "trackio", until=3, end=False)
os._exit(0)  # the last checkpoint is of step 2
"""
TRACKIO = """
t.track(folder / "out", "trackio", after=2)
import trackio, json
from trackio.sqlite_storage import SQLiteStorage
(run,) = trackio.Api().runs("softprompt")
logs = SQLiteStorage.get_logs("softprompt", "mood")
print(json.dumps([run.config, logs], default=str))
"""


def test_trackio_holds_every_step_once_also_of_a_resumed_run(tmp_path):
    in_process(KILLED, tmp_path)
    lines = in_process(TRACKIO, tmp_path).splitlines()
    assert len(lines) == 1  # trackio prints to stdout, which is for results
    config, logs = json.loads(lines[0])
    assert config["train.lr"] == 0.5 and config["recipe"] == "method: prompt-tuning\n"
    losses = [(log["step"], log["train/loss"]) for log in logs if "train/loss" in log]
    assert losses == [(line["step"], line["loss"]) for line in STEPS]
    assert [log["artifact_digest"] for log in logs if "artifact_digest" in log] == [FACTS["artifact_digest"]]


WANDB = """
t.track(folder / "out", {"wandb": {"dir": str(folder)}})
"""


def test_wandb_holds_every_step_the_recipe_and_the_result(tmp_path):
    in_process(WANDB, tmp_path)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = list(wandb_records(file))
    losses = [values["train/loss"] for kind, values in records if kind == "step" and values]
    assert losses == [line["loss"] for line in STEPS]
    whole = {key: value for _, values in records for key, value in values.items()}
    assert whole["dev/accuracy"] == whole["best/accuracy"] == 0.75
    assert whole["artifact_digest"] == FACTS["artifact_digest"] and whole["train.lr"] == 0.5
    assert (file.parent / "files" / "recipe.yaml").read_text() == "method: prompt-tuning\n"


def wandb_records(file: Path):
    """Yield the values of each record in a file of wandb's offline mode: LevelDB's log after a header."""
    from wandb.proto import wandb_internal_pb2

    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:  # no record begins at the end of a block
            place += left
        length, part = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if part not in (1, 4):  # a whole record, or the last part of one
            continue
        record, whole = wandb_internal_pb2.Record.FromString(whole), b""
        parts = record.history.item, record.summary.update, record.run.config.update
        for kind, items in zip(("step", "summary", "config"), parts, strict=True):
            yield (
                kind,
                {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in items},
            )


def test_wandb_without_a_login_is_an_error(tmp_path, monkeypatch):
    from softprompt.errors import SoftPromptError
    from softprompt.tracking.registry import check

    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SoftPromptError, match="account") as error:
        check(TrackConfig.model_validate("wandb"))
    assert "track.wandb.mode=offline" in error.value.fix
    check(TrackConfig.model_validate({"wandb": {"mode": "offline"}}))
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password " + "0" * 40)
    check(TrackConfig.model_validate("wandb"))


# --- a run that is resumed ---


def test_a_resumed_run_continues_its_runs_and_has_no_step_twice(tmp_path, store, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trackers = {"tensorboard": {}, "mlflow": {"uri": store, "project": "resumed"}}
    track(tmp_path / "out", trackers, until=3, end=False)
    track(tmp_path / "out", trackers, after=2)
    assert steps_of(tmp_path / "out") == [1, 2, 3, 4]
    scalars = events(tmp_path / "out" / "tensorboard").Scalars("train/loss")
    assert [event.step for event in scalars] == [1, 2, 3, 4]
    client, (run,) = runs_of(store, "resumed")
    assert [p.step for p in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2, 3, 4]
    assert run.info.status == "FINISHED"


def test_a_tracker_that_is_added_later_receives_the_steps_before(tmp_path):
    track(tmp_path / "out", {}, until=3, end=False)
    track(tmp_path / "out", "tensorboard", after=2)
    scalars = events(tmp_path / "out" / "tensorboard").Scalars("train/loss")
    assert [(e.step, e.value) for e in scalars] == [(x["step"], pytest.approx(x["loss"])) for x in STEPS]


def test_another_runs_lines_are_dropped(tmp_path):
    track(tmp_path / "out", "tensorboard", until=3, end=False)
    track(tmp_path / "out", "tensorboard", run="another")
    assert steps_of(tmp_path / "out") == [1, 2, 3, 4]
    assert len(events(tmp_path / "out" / "tensorboard-2").Scalars("train/loss")) == 4


def test_a_run_that_the_tracker_lost_begins_anew(tmp_path, store, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    trackers = {"mlflow": {"uri": store, "project": "lost"}}
    track(tmp_path / "out", trackers, until=2, end=False)
    file = tmp_path / "out" / FILE
    file.write_text(file.read_text().replace('"name": "mlflow", "id": "', '"name": "mlflow", "id": "0'))
    track(tmp_path / "out", trackers, after=2)
    client, runs = runs_of(store, "lost")
    steps = [[p.step for p in client.get_metric_history(run.info.run_id, "train/loss")] for run in runs]
    assert sorted(steps) == [[1, 2], [1, 2, 3, 4]]
    assert "cannot resume" in caplog.text
