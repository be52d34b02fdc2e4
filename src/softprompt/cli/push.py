"""`softprompt push` uploads a tuned prompt to the Hugging Face hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SoftPromptError
from .opening import ArtifactFolder
from .output import Json, Reply, log, size, table

if TYPE_CHECKING:
    from ..artifacts.hub.upload import Repository, Upload


def push(
    artifact: ArtifactFolder,
    id: Annotated[str, typer.Argument(metavar="ID", help="The repository: OWNER/NAME.", show_default=False)],
    private: Annotated[
        bool, typer.Option("--private", help="Create a private repository; default: the account's setting.")
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option("--revision", "--branch", metavar="BRANCH", help="Created if needed. Default: main."),
    ] = None,
    license: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="The hub's id: apache-2.0, mit, other …")
    ] = None,
    license_name: Annotated[
        str | None, typer.Option("--license-name", metavar="NAME", help="Of --license other.")
    ] = None,
    license_link: Annotated[
        str | None, typer.Option("--license-link", metavar="URL", help="Of --license other.")
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option("--base-model", metavar="ID", help="The hub id of a base that is a folder here."),
    ] = None,
    card: Annotated[
        Path | None, typer.Option("--card", metavar="FILE", help="Your own text for the model card.")
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", metavar="TEXT", help="The commit's message.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Upload without asking.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be uploaded; the hub is not contacted.")
    ] = False,
    json: Json = False,
) -> Reply:
    """Upload a tuned prompt to the Hugging Face hub.

    It shows the files and the model card, asks, and uploads them as one commit. Then hf:ID is an artifact
    wherever a folder is. Checkpoints, training rows and paths of this machine are not uploaded. The token is
    that of `hf auth login`, or HF_TOKEN.

    \b
    Example:
      softprompt push runs/mood me/mood
      softprompt push runs/mood me/mood --private --license apache-2.0 --yes
      softprompt generate hf:me/mood "what a film!"
    """
    from ..artifacts.card_metadata import License
    from ..artifacts.hub.upload import Account, prepare
    from ..artifacts.manifest import using_command

    terms = License(license, license_name, license_link)
    upload = prepare(artifact, id, revision=revision, license=terms, base_model=base_model, card=card)
    asks = not yes and not json and sys.stdin.isatty()
    if dry_run or not (yes or asks):
        reply = Reply(_data(upload) | {"uploaded": False}, _shown(upload))
        if dry_run:
            return reply
        if not json:
            print(reply.text, flush=True)
        raise SoftPromptError(
            "nothing was uploaded",
            why="an upload is confirmed first, and there is no terminal to ask in",
            fix="add --yes, or --dry-run to see what would be uploaded",
        )
    account = Account()
    upload, repository = account.look(upload, private=private or None)
    shown = _shown(upload, repository, private)
    if asks:
        print(shown, flush=True)
        if not _confirmed(f"\nUpload to {upload.reference}?"):
            return Reply(None, "nothing was uploaded", code=1)
    else:
        log(shown)
    commit = account.send(upload, repository, message)
    pinned = f"hf:{upload.reference.id}@{commit.oid}"
    data = _data(upload) | {"uploaded": True, "revision": commit.oid, "url": str(commit.commit_url)}
    command = f"softprompt {using_command(upload.manifest['recipe'])} {pinned}"
    lines = [f"uploaded: {commit.commit_url}", f'next:\n  {command} "your input"']
    return Reply(data, "\n\n".join(lines))


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # Ctrl-C, or the end of the input
        raise KeyboardInterrupt from None


def _data(upload: Upload) -> dict[str, object]:
    return {
        "id": upload.reference.id,
        "branch": upload.reference.revision or "main",
        "files": upload.sizes(),
        "card": upload.card,
        "notes": list(upload.notes),
    }


def _shown(upload: Upload, repository: Repository | None = None, private: bool = False) -> str:
    """Return the upload in words: the target, the files, the card, and what is to be noted."""
    sizes = upload.sizes()
    replaced = () if repository is None else repository.replaced
    rows = [
        (name, size(count), "replaces the one there" if name in replaced else "")
        for name, count in sizes.items()
    ]
    rows += [
        (name, "", "removed: the artifact has none") for name in (repository.stale if repository else ())
    ]
    blocks = [f"to {_target(upload, repository, private)}", table(rows, right=[1])]
    blocks.append("README.md:\n" + "\n".join(f"    {line}".rstrip() for line in upload.card.splitlines()))
    notes = list(upload.notes)
    if "license" not in upload.card.partition("\n---\n")[0]:
        notes.append("no licence is stated; --license ID states one")
    return "\n\n".join([*blocks, *(["\n".join(f"note: {note}" for note in notes)] if notes else [])])


def _target(upload: Upload, repository: Repository | None, private: bool) -> str:
    branch = upload.reference.revision or "main"
    where = f"{upload.reference.id}, branch {branch}"
    if repository is None:
        return where
    if repository.head is None:
        return f"{where}: a new {'private ' if private else ''}repository"
    kind = "private" if repository.private else "public"
    new = "" if repository.has_branch else ", a new branch"
    return f"{where}{new}: a {kind} repository, at commit {repository.head[:12]} now"
