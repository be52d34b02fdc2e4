"""Weights & Biases keeps a run online, or, with `mode: offline`, in files for `wandb sync`."""

from __future__ import annotations

import contextlib
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

from ..config.sections.track import TrackerConfig
from ..errors import SoftPromptError
from .base import Status, Tracker

_ENDS: dict[Status, int] = {"finished": 0, "interrupted": 255, "failed": 1}
KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")


@final
class WandB(Tracker):
    """Writes metrics, the recipe as the run's config and as `recipe.yaml`, and facts into its summary."""

    package, module = "wandb", "wandb"

    @classmethod
    def check(cls, name: str, config: TrackerConfig) -> None:
        super().check(name, config)
        mode = config.options().get("mode") or os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not _is_logged_in():  # wandb would ask for a key, and wait
            raise SoftPromptError(
                "track: wandb needs an account",
                why="no API key is set, and nobody has logged in on this machine",
                fix="wandb login, or track.wandb.mode=offline (upload later with wandb sync)",
            )

    def start(self, id: str | None) -> str | None:
        import wandb

        options: dict[str, Any] = {"reinit": "create_new", **self.config.options()}
        settings = {"silent": True, "console": "off", **options.pop("settings", {})}
        if self.config.dir:
            Path(self.config.dir).mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=self.project,
            name=self.name,
            group=self.group,
            dir=self.config.dir,
            config={**self.subject.params, **self.subject.tags},
            settings=wandb.Settings(**settings),
            **({"id": id, "resume": "allow"} if id else {}),
            **options,
        )
        Path(self._run.dir, "recipe.yaml").write_text(self.subject.recipe, encoding="utf-8")
        return self._run.id

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def end(self, scores: Mapping[str, float], facts: Mapping[str, str], step: int, status: Status) -> None:
        self._run.summary.update({**scores, **facts})
        self._run.finish(exit_code=_ENDS[status])

    def table(self, name: str, columns: list[str], rows: list[list[Any]], text: str) -> None:
        import wandb

        self._run.log({name: wandb.Table(columns=[*columns], data=[*rows])})

    @property
    def where(self) -> str:
        if getattr(self._run, "offline", False):  # asked for its address, it would warn
            return f"offline: wandb sync {Path(self._run.dir).parent}"
        return self._run.url or super().where


def _is_logged_in() -> bool:
    if any(os.environ.get(key) for key in KEYS):
        return True
    hosts = {*HOSTS, urlsplit(os.environ.get("WANDB_BASE_URL", "")).hostname or ""}
    for file in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if file and hosts & netrc.netrc(os.path.expanduser(file)).hosts.keys():
                return True
    return False
