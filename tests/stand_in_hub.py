"""A local server that answers like the HTTP API of the Hugging Face hub, as far as `huggingface_hub` uses it.

Written after the requests that huggingface_hub sends: repositories, commits as lines of JSON, files by LFS
or as they are, revisions, and the codes and headers of its errors.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN, READER = "hf_stand_in_token_of_me", "hf_stand_in_token_that_reads"
NAME = r"(?P<id>[^/]+/[^/]+)"


@dataclass
class Repo:
    """Branches and tags name commits, and a commit holds the files by path."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        sha = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        self.messages.append(message)
        return sha

    def sha(self, revision: str) -> str | None:
        known = {**{sha: sha for sha in self.commits}, **self.tags, **self.branches}
        return known.get(revision)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.sha(revision) or ""]


@dataclass
class StandIn:
    """What the server holds, and what it was asked."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)  # sent by LFS, by their hashes
    requests: list[str] = field(default_factory=list)
    broken: dict[str, int] = field(
        default_factory=dict
    )  # the status that requests which match are refused with
    lfs: bool = True  # safetensors are sent by LFS, as on the hub


class Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", body: Any = None) -> None:
        self.status, self.code, self.message = status, code, message
        self.body = body or {"error": message}


class Handler(BaseHTTPRequestHandler):
    """Answers requests for `hub`."""

    hub: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {path}")
        try:
            for pattern, status in self.hub.broken.items():
                if re.search(pattern, f"{self.command} {path}"):
                    raise Refused(status)
            for method, pattern, answer in ROUTES:
                if method in (self.command, "GET" if self.command == "HEAD" else "") and (
                    match := re.fullmatch(pattern, path)
                ):
                    return self._send(200, *answer(self, body, **match.groupdict()))
            raise Refused(404)
        except Refused as error:
            named = {"X-Error-Code": error.code, "X-Error-Message": error.message}
            self._send(error.status, error.body, {key: value for key, value in named.items() if value})

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # --- who asks, and for what ---

    def user(self, *, writes: str | None = None) -> str | None:
        """The name of the token's user; `writes` is the owner of what will be changed."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in (TOKEN, READER):
            raise Refused(401, message="Invalid credentials in Authorization header")
        if writes is not None and not token:
            raise Refused(401, message="Unauthorized")
        if writes is not None and (token != TOKEN or writes != "me"):
            raise Refused(403, message="You don't have the rights to create a model under the namespace")
        return {TOKEN: "me", READER: "reader"}.get(token)

    def repo(self, id: str) -> Repo:
        held = self.hub.repos.get(id)
        if held is None or (held.private and self.user() != id.partition("/")[0]):
            raise Refused(404 if self.user() else 401, "RepoNotFound", "Repository not found")
        return held

    def at(self, id: str, revision: str) -> tuple[Repo, str]:
        repo = self.repo(id)
        sha = repo.sha(revision)
        if sha is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, sha

    # --- answers ---

    def whoami(self, body: bytes) -> tuple[Any]:
        if (user := self.user()) is None:
            raise Refused(401, message="Invalid username or password.")
        return ({"type": "user", "name": user, "auth": {}, "orgs": []},)

    def create(self, body: bytes) -> tuple[Any]:
        asked = json.loads(body)
        id = f"{asked['organization'] or 'me'}/{asked['name']}"
        self.user(writes=id.partition("/")[0])
        if id in self.hub.repos:
            raise Refused(409, message="You already created this model repo")
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.repos[id] = repo = Repo(private)
        repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs"}, "initial commit")
        return ({"url": f"{self.hub.url}/{id}", "name": id, "id": id},)

    def validate(self, body: bytes) -> tuple[Any]:
        import yaml

        about = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
        allowed = ("apache-2.0", "mit", "other", None)
        if about.get("license") not in allowed or not re.fullmatch(NAME, about.get("base_model", "a/b")):
            raise Refused(400, body={"errors": [{"message": '"license" must be one of mit, …'}]})
        return ({"errors": [], "warnings": []},)

    def preupload(self, body: bytes, id: str, rev: str) -> tuple[Any]:
        self.user(writes=id.partition("/")[0])
        self.at(id, rev)
        files = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if self.hub.lfs and each["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for each in json.loads(body)["files"]
        ]
        return ({"files": files},)

    def batch(self, body: bytes, id: str) -> tuple[Any]:
        self.user(writes=id.partition("/")[0])
        objects = [
            {
                **each,
                **(
                    {}
                    if each["oid"] in self.hub.blobs
                    else {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}}}
                ),
            }
            for each in json.loads(body)["objects"]
        ]
        return ({"transfer": "basic", "objects": objects},)

    def blob(self, body: bytes, oid: str) -> tuple[Any]:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.blobs[oid] = body
        return ({},)

    def commit(self, body: bytes, id: str, rev: str) -> tuple[Any]:
        self.user(writes=id.partition("/")[0])
        repo, sha = self.at(id, rev)
        if rev not in repo.branches:
            raise Refused(400, message="a commit needs a branch")
        files, message = dict(repo.commits[sha]), ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit", sha) != sha:
                    raise Refused(412, message="A commit has happened since. Please refresh and try again.")
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                is_lfs = line["key"] == "lfsFile"
                content = self.hub.blobs[value["oid"]] if is_lfs else base64.b64decode(value["content"])
                files[value["path"]] = content
        new = repo.commit(rev, files, message)
        return ({"commitUrl": f"{self.hub.url}/{id}/commit/{new}", "commitOid": new},)

    def branch(self, body: bytes, id: str, branch: str) -> tuple[Any]:
        self.user(writes=id.partition("/")[0])
        repo = self.repo(id)
        repo.branches[branch] = repo.branches["main"]
        return ({},)

    def info(self, body: bytes, id: str, rev: str = "main") -> tuple[Any]:
        repo, sha = self.at(id, rev)
        siblings = [{"rfilename": path} for path in repo.commits[sha]]
        return ({"id": id, "sha": sha, "private": repo.private, "siblings": siblings, "tags": []},)

    def refs(self, body: bytes, id: str) -> tuple[Any]:
        repo = self.repo(id)
        listed = {
            kind: [{"name": n, "ref": f"refs/{n}", "targetCommit": sha} for n, sha in named.items()]
            for kind, named in (("branches", repo.branches), ("tags", repo.tags))
        }
        return ({**listed, "converts": []},)

    def tree(self, body: bytes, id: str, rev: str) -> tuple[Any]:
        repo, sha = self.at(id, rev)
        entries = []
        for path, content in repo.commits[sha].items():
            entry = {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": hashlib.sha1(content).hexdigest(),
            }
            if hashlib.sha256(content).hexdigest() in self.hub.blobs:
                oid = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
            entries.append(entry)
        return (entries,)

    def resolve(self, body: bytes, id: str, rev: str, path: str) -> tuple[bytes, dict[str, str]]:
        repo, sha = self.at(id, rev)
        if path not in repo.commits[sha]:
            raise Refused(404, "EntryNotFound", "Entry not found")
        content = repo.commits[sha][path]
        return content, {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}


API = f"/api/models/{NAME}"
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("POST", f"{API}/preupload/(?P<rev>.+)", Handler.preupload),
    ("POST", f"{API}/commit/(?P<rev>.+)", Handler.commit),
    ("POST", f"{API}/branch/(?P<branch>.+)", Handler.branch),
    ("GET", f"{API}/refs", Handler.refs),
    ("GET", f"{API}/tree/(?P<rev>[^/]+)/?", Handler.tree),
    ("GET", f"{API}/revision/(?P<rev>.+)", Handler.info),
    ("GET", API, Handler.info),
    ("POST", f"/{NAME}\\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", Handler.blob),
    ("GET", f"/{NAME}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", Handler.resolve),
]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    """A hub of nothing, with `me` logged in and an empty cache, until the test is over."""
    from huggingface_hub import constants

    state = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": state}))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    # huggingface_hub has read its environment already
    monkeypatch.setattr(constants, "ENDPOINT", state.url)
    template = state.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield state
    server.shutdown()
    server.server_close()
