"""The steps of the container recipes are executed in a fresh folder in place of an image's root.

Nothing here can build an image, so each step is run as the recipe has it, and four things are replaced:

- `FROM` is a new virtual environment. The packages of this environment are behind its own, as if the base
  image had them, since the recipe's downloads are gigabytes.
- `pip` is the new environment's and runs the recipe's own command, but asks no index and builds with the
  packages at hand. So every requirement must be met by what is installed, at the version that
  constraints.txt pins; softprompt itself is built from the copied files and installed.
- `apt-get` does nothing, as it would change this machine.
- Absolute paths (not those in URLs) belong to the folder. `USER` changes no user, as another one might not
  be allowed to read this Python.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

pytest.importorskip("fastapi", reason="NO CONTAINER TESTS: pip install softprompt[gateway]")
pytest.importorskip("hatch_vcs", reason="NO CONTAINER TESTS: pip install hatchling hatch-vcs")
import httpx2 as httpx

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "deploy/docker"
KNOWN = {"FROM", "RUN", "ARG", "ENV", "COPY", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}
#: A path that begins a word, so that neither a URL nor the rest of another path is changed.
ABSOLUTE = re.compile(r"""(?<![^\s"'=(])/(?=\w)""")


def steps(name: str) -> list[tuple[str, str]]:
    """Return a recipe's instructions with their arguments, without comments, each on one line."""
    lines = (RECIPES / name).read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


class Image:
    """A folder in place of an image's root, and the environment that its steps see."""

    def __init__(self, root: Path, **arguments: str) -> None:
        self.root, self.arguments, self.command, self.user = root, arguments, [], ""
        venv.create(root / "venv")
        inside = sysconfig.get_path("purelib", vars={"base": str(root / "venv")})
        Path(inside, "base_image.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
        python, record = (shlex.quote(str(root / name)) for name in ("venv/bin/python", "apt.txt"))
        for name, line in {"pip": f'exec {python} -m pip "$@"', "apt-get": f'echo "$*" >>{record}'}.items():
            command = root / "venv/bin" / name
            command.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
            command.chmod(0o755)
        path = [root / "venv/bin", os.environ["PATH"]]
        self.environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
            "PATH": os.pathsep.join(map(str, path)),
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads the negated value: this means that there is none
        }

    def inside(self, text: str) -> str:
        """Move the absolute paths of a text into the folder."""
        return ABSOLUTE.sub(f"{self.root}/", text)

    def run(self, text: str) -> None:
        command = ["/bin/sh", "-c", self.inside(text)]
        done = subprocess.run(command, env=self.environment, cwd=self.root, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"

    def copy(self, text: str) -> None:
        *sources, target = text.split()
        for source in sources:
            place = Path(self.inside(target)) / ("" if (ROOT / source).is_dir() else source)
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, place)

    def follow(self, name: str) -> None:
        """Execute a recipe. An instruction that is not known here fails, so that none is left out."""
        for instruction, arguments in steps(name):
            assert instruction in KNOWN, instruction
            if instruction == "RUN":
                self.run(arguments)
            elif instruction == "COPY":
                self.copy(arguments)
            elif instruction == "ARG":
                key, _, value = arguments.partition("=")
                self.environment[key] = self.arguments.get(key, value)
            elif instruction == "ENV":
                pairs = dict(pair.split("=", 1) for pair in shlex.split(arguments))
                self.environment |= {key: self.inside(value) for key, value in pairs.items()}
            elif instruction in ("ENTRYPOINT", "CMD"):
                self.command += [self.inside(word) for word in json.loads(arguments)]
            elif instruction == "USER":
                self.user = arguments
        if not _loads(self.environment.get("LD_PRELOAD", "")):
            self.environment.pop("LD_PRELOAD", None)  # apt-get installed nothing

    @contextmanager
    def started(self):
        """Start the image's command; gives the address that it prints."""
        errors = self.root / "errors.txt"
        with errors.open("w") as file:
            process = subprocess.Popen(
                [*self.command, "--json"],
                env=self.environment, cwd=self.root, stdout=subprocess.PIPE, stderr=file, text=True,
            )  # fmt: skip
        try:
            line = process.stdout.readline()
            assert line, errors.read_text()
            yield json.loads(line)["url"]
        finally:
            process.terminate()
            process.communicate(timeout=30)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def where(image: Image, module: str) -> Path:
    """The file from which the image's Python would import a module."""
    code = f"from importlib.util import find_spec; print(find_spec({module!r}).origin)"
    command = [image.root / "venv/bin/python", "-c", code]
    done = subprocess.run(command, env=image.environment, cwd=image.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="an image is of Linux")
def test_the_gateways_recipe_installs_and_serves(tmp_path, model_folder):
    image = Image(tmp_path, VERSION="7.8.9")  # as after --build-arg
    image.follow("gateway.Dockerfile")
    version = [*image.command[:1], "--version"]
    assert subprocess.check_output(version, env=image.environment, text=True) == "softprompt 7.8.9\n"
    assert (tmp_path / "apt.txt").read_text().splitlines()[0] == "update"
    assert image.user.isdigit() and int(image.user) > 0  # Kubernetes' runAsNonRoot takes numbers alone
    assert where(image, "softprompt").is_relative_to(tmp_path / "venv")
    assert where(image, "softprompt_demo").is_relative_to(tmp_path / "venv")
    (tmp_path / "config").mkdir()
    (tmp_path / "prompts").mkdir()
    options = {"prompts": str(tmp_path / "prompts"), "model": str(model_folder), "port": 0}
    (tmp_path / "config/serve.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
    with image.started() as url:
        assert httpx.get(f"{url}/health", timeout=30).status_code == 200
        (model,) = httpx.get(f"{url}/v1/models", timeout=30).json()["data"]
        body = {"model": model["id"], "prompt": "w1 w2", "max_tokens": 2}
        reply = httpx.post(f"{url}/v1/completions", json=body, timeout=30)
        assert reply.status_code == 200 and reply.json()["usage"]["completion_tokens"] > 0


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="an image is of Linux")
def test_the_connectors_recipe_installs(tmp_path):
    image = Image(tmp_path)
    image.follow("vllm.Dockerfile")
    assert where(image, "softprompt_vllm").is_relative_to(tmp_path / "venv")
    assert image.command == []  # that of vLLM's image


@pytest.mark.parametrize("name", sorted(file.name for file in RECIPES.glob("*.Dockerfile")))
def test_what_a_recipe_copies_is_sent_to_the_builder(name):
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [source for key, text in steps(name) if key == "COPY" for source in text.split()[:-1]]
    assert copied and set(copied) <= sent
