"""An artifact is uploaded to the hub as one commit: its tensors, its manifest and a model card.

`prepare` decides what is uploaded and contacts nobody, `Account` looks at the repository, and `send` makes
the commit. A checkpoint, training rows and paths of this machine are never among the files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._system.progress import task
from ..._system.quiet import quietly
from ..._system.version import version
from ...errors import SoftPromptError
from .. import artifact as artifacts
from ..card_metadata import License
from ..manifest import BASE, MANIFEST, STATE, VECTORS, text_of
from ..model_card import model_card
from .failures import explained, no_token
from .public import base_note, public
from .reference import Reference, parse

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

CARD = "README.md"
LICENSES = "https://huggingface.co/docs/hub/repositories-licenses"
#: Fields of a card on the hub that its owner may have written there; they are kept.
KEPT = ("license", "license_name", "license_link", "language", "datasets", "tags")


@dataclass(frozen=True)
class Upload:
    """An upload has the tensors as files of the artifact, and what is written for the hub."""

    reference: Reference  # its revision is a branch
    tensors: Mapping[str, Path]
    manifest: Mapping[str, Any]
    license: License
    notes: tuple[str, ...] = ()
    text: str | None = None  # of the card, in place of ours
    more: Mapping[str, Any] = field(default_factory=dict)  # metadata that the card on the hub has

    @property
    def card(self) -> str:
        return model_card(
            self.manifest, id=str(self.reference), license=self.license, more=self.more, text=self.text
        )

    def files(self) -> dict[str, bytes | Path]:
        """Return the content of each file by its name in the repository."""
        written = {MANIFEST: text_of(self.manifest).encode(), CARD: self.card.encode()}
        return {**written, **self.tensors}

    def sizes(self) -> dict[str, int]:
        """Return the size of each file in bytes."""
        return {
            name: content.stat().st_size if isinstance(content, Path) else len(content)
            for name, content in self.files().items()
        }


@dataclass(frozen=True)
class Repository:
    """The repository as it is before the upload; `head` is None where there is none yet."""

    head: str | None = None
    private: bool | None = None
    stale: tuple[str, ...] = ()  # files of an artifact that the new one does not have
    replaced: tuple[str, ...] = ()
    has_branch: bool = False


def prepare(
    folder: str | Path,
    id: str,
    *,
    revision: str | None = None,
    license: License | None = None,
    base_model: str | None = None,
    card: str | Path | None = None,
) -> Upload:
    """Verify an artifact, and return what is uploaded of it.

    `revision` is a branch. `base_model` is the base's id on the hub, for one that was loaded from a folder.
    `card` is a file with the text of the model card. Raises SoftPromptError for a damaged artifact, a wrong
    id, or an artifact that nobody else could load.
    """
    reference = parse(id, owned=False)
    reference = replace(reference, revision=revision or reference.revision)
    artifact = artifacts.load(folder)
    manifest, cleaned = public(artifact.manifest, base_model and parse(base_model).id)
    notes = [note] if (note := base_note(manifest)) else []
    if cleaned:
        notes.append(f"paths of this machine are left out of {', '.join(cleaned)}")
    tensors = {name: artifact.path / name for name in manifest["files"]}
    text = None if card is None else _text(Path(card))
    return Upload(reference, tensors, manifest, license or License(), tuple(notes), text)


class Account:
    """The user's account on the hub, which writes."""

    @quietly
    def __init__(self, token: str | None = None) -> None:
        from huggingface_hub import HfApi, get_token

        token = token if isinstance(token, str) else get_token()
        if not token:
            raise no_token()
        self.api: HfApi = HfApi(token=token, library_name="softprompt", library_version=version())

    @quietly
    def look(self, upload: Upload, *, private: bool | None = None) -> tuple[Upload, Repository]:
        """Return the upload with the owner and the card's metadata filled in, and the repository.

        Raises SoftPromptError where the hub refuses the account, or a public repository would be taken for a
        private one.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        reference = upload.reference
        with explained(reference, writes=True):
            user = self.api.whoami()["name"]
            if "/" not in reference.id:
                reference = replace(reference, id=f"{user}/{reference.id}")
                upload = replace(upload, reference=reference)
            about = None
            with contextlib.suppress(RepositoryNotFoundError):
                about = self.api.model_info(reference.id)
            if about is None:
                self._validate(upload)
                return upload, Repository(private=private)
            if private and not about.private:
                raise SoftPromptError(
                    f"{reference.id} is public",
                    why="--private decides about a new repository, and does not change an existing one",
                    fix="change its visibility in its settings on the hub, or choose another name",
                )
            has_branch = not reference.revision or self._has_branch(reference)
            if reference.revision and has_branch:  # a new one will begin at the main branch
                about = self.api.model_info(reference.id, revision=reference.revision)
            upload = replace(upload, more=self._metadata(reference, about.sha))
            self._validate(upload)
        held = {sibling.rfilename for sibling in about.siblings or ()}
        stale = tuple(name for name in (VECTORS, STATE, BASE) if name in held - set(upload.files()))
        replaced = tuple(name for name in upload.files() if name in held)
        return upload, Repository(about.sha, about.private, stale, replaced, has_branch)

    @quietly
    def send(self, upload: Upload, repository: Repository, message: str | None = None) -> CommitInfo:
        """Upload as one commit, after creating the repository and the branch where they do not exist."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        reference = upload.reference
        operations = [
            *(CommitOperationAdd(name, content) for name, content in upload.files().items()),
            *(CommitOperationDelete(name) for name in repository.stale),
        ]
        with task(f"uploading to {reference}"), explained(reference, writes=True):
            if repository.head is None:
                self.api.create_repo(reference.id, private=repository.private, exist_ok=True)
            if reference.revision and not repository.has_branch:
                self.api.create_branch(reference.id, branch=reference.revision, exist_ok=True)
            return self.api.create_commit(
                reference.id,
                operations,
                commit_message=message or f"Upload a {upload.manifest['method']} artifact of softprompt",
                revision=reference.revision,
                parent_commit=repository.head,
            )

    def _validate(self, upload: Upload) -> None:
        """Raise SoftPromptError where the hub refuses the card, before anything is created there."""
        from huggingface_hub.errors import BadRequestError
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        # ModelCard.validate asks huggingface.co in some versions, whatever HF_ENDPOINT says
        answer = get_session().post(
            f"{self.api.endpoint}/api/validate-yaml",
            json={"repoType": "model", "content": upload.card},
            headers=build_hf_headers(token=self.api.token),
        )
        try:
            hf_raise_for_status(answer)
        except BadRequestError as error:
            messages = [each.get("message") for each in answer.json().get("errors", [])]
            raise SoftPromptError(
                "the hub refuses the metadata of the model card",
                why="; ".join(map(str, messages)) or str(error),
                fix=f"correct the licence ({LICENSES}) or the base model's id",
            ) from error

    def _has_branch(self, reference: Reference) -> bool:
        """Tell whether the revision is a branch. Raises SoftPromptError for a tag."""
        refs = self.api.list_repo_refs(reference.id)
        if any(tag.name == reference.revision for tag in refs.tags):
            raise SoftPromptError(
                f"'{reference.revision}' is a tag of {reference.id}",
                why="a tag names one commit for good, and an upload makes a new one",
                fix="upload to a branch (--revision NAME), and tag it afterwards",
            )
        return any(branch.name == reference.revision for branch in refs.branches)

    def _metadata(self, reference: Reference, commit: str | None) -> dict[str, Any]:
        """Return what the card on the hub states and no artifact knows, such as a licence."""
        from huggingface_hub import ModelCard, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        with contextlib.suppress(EntryNotFoundError, ValueError):  # no card, or one that cannot be read
            file = hf_hub_download(reference.id, CARD, revision=commit, token=self.api.token)
            data = ModelCard.load(file, ignore_metadata_errors=True).data.to_dict()
            return {key: data[key] for key in KEPT if data.get(key)}
        return {}


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    license: str | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
    base_model: str | None = None,
    card: str | Path | None = None,
    commit_message: str | None = None,
    token: str | bool | None = None,
) -> CommitInfo:
    """Upload an artifact to the Hugging Face hub, and return the commit.

    `repo_id` is OWNER/NAME, and `hf:OWNER/NAME` is an artifact then, wherever a folder is. A repository that
    does not exist is created; `private` decides about it. `revision` is a branch (default: main). `license`
    is the hub's id of a licence; for `other`, `license_name` and `license_link` say which. `base_model` is
    the base's id on the hub, for one that was loaded from a folder. `card` is a file whose text replaces that
    of the model card. `commit_message` is that of the commit. The token is that of `hf auth login` or
    HF_TOKEN, unless it is given. Raises SoftPromptError, and uploads nothing then.
    """
    terms = License(license, license_name, license_link)
    upload = prepare(folder, repo_id, revision=revision, license=terms, base_model=base_model, card=card)
    account = Account(token if isinstance(token, str) else None)
    return account.send(*account.look(upload, private=private), message=commit_message)


def _text(file: Path) -> str:
    """Return the text of a card without its metadata."""
    from huggingface_hub import ModelCard

    try:
        return ModelCard(file.read_text(encoding="utf-8"), ignore_metadata_errors=True).text
    except (OSError, ValueError) as error:
        raise SoftPromptError(
            f"cannot read the card {file}", why=str(error), fix="give a Markdown file in UTF-8"
        ) from error
