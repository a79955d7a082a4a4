"""The Hugging Face Hub through its own client, with what it does not promise: that a file is the one we mean."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

import iir_sdk
from iir_sdk.errors import HubAccessError, HubError, IirError, IntegrityError, OutputError, WeightsNotFoundError

T = TypeVar("T")
logger = logging.getLogger("iir_sdk")

# The client's transport has changed more than once (requests, httpx and on); the base of its HTTP error is that of all
# the transport's errors. ValueError: bad repository names, and forced downloads that failed for the reason behind it;
# RuntimeError: likewise for uploads.
_CLIENT_ERRORS: tuple[type[Exception], ...] = (
    EntryNotFoundError,
    ValueError,
    RuntimeError,
    OSError,
    *HfHubHTTPError.__bases__,
)
_ANSWERS: tuple[tuple[type[Exception], type[IirError], str], ...] = (
    (LocalTokenNotFoundError, HubAccessError, "token=True for {}, but nobody is logged in here; run: hf auth login"),
    (GatedRepoError, HubAccessError, "{} is gated: ask for access on its page, then pass a token: hf auth login"),
    (
        RepositoryNotFoundError,
        WeightsNotFoundError,
        "the Hub has no {}, or it is private. Check the name, or pass a token: hf auth login",
    ),
    (RevisionNotFoundError, WeightsNotFoundError, "the Hub has no such revision: {}. Was it deleted? Update iir_sdk."),
    (EntryNotFoundError, WeightsNotFoundError, "the repository has no such file: {}."),
)
"""What the client raises for an answer of the Hub, and what that is to a user; a kind before those it is one of."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


@dataclass(frozen=True)
class HubOptions:
    """How to ask the Hub; the client's own settings (its cache, token, endpoint, offline switch) are the defaults."""

    revision: str | None = None  # branch, tag or commit; None for the pinned one, or ``main`` where nothing is pinned
    cache_dir: str | os.PathLike[str] | None = None  # folder of the cache
    token: str | bool | None = None  # access token; True for the one that was logged in with
    local_files_only: bool = False  # never ask the network
    force_download: bool = False  # fetch again what the cache holds

    @property
    def ask_for_the_hub(self) -> bool:
        """Whether a copy at hand cannot be what is meant."""
        return self.revision is not None or self.force_download


def fetch(repo_id: str, filename: str, options: HubOptions, read: Callable[[Path], T]) -> T:
    """Download a file, or find it in the cache, and read it; one fresh download where what was there is damaged.

    Args:
        repo_id: ``owner/name``.
        filename: in the repository.
        options: revision and the rest.
        read: verifies and reads the file; its IntegrityError sets the file aside.

    Returns:
        What ``read`` made of it.

    Raises:
        WeightsNotFoundError: no such repository, revision or file; or offline and not in the cache.
        HubAccessError: the Hub refuses.
        HubError: it cannot be reached or did not deliver.
        OutputError: the cache cannot be written.
        IntegrityError: the fresh download is not the expected file either.
    """
    file = download(repo_id, filename, options)
    seen = _identity(file)
    try:
        return read(file)
    except IntegrityError as damage:
        aside = set_aside(file, seen)
        logger.warning("%s Set aside as %s; fetching it afresh.", damage, aside)
        try:
            fresh = download(repo_id, filename, replace(options, force_download=True))
        except IirError as error:
            raise IntegrityError(f"{damage} Set aside as {aside}. No fresh copy could be had: {error}") from damage
    seen = _identity(fresh)
    try:
        return read(fresh)
    except IntegrityError as damage:
        raise IntegrityError(
            f"{damage} A fresh download from {repo_id!r} was no better (set aside as {set_aside(fresh, seen)}): "
            "the repository's file is another one. Tell its owner, or update iir_sdk."
        ) from damage


def download(repo_id: str, filename: str, options: HubOptions) -> Path:
    """Path in the cache of a repository's file, downloaded if need be, not verified; raises as :func:`fetch` does."""
    if options.local_files_only and options.force_download:
        raise HubError("local_files_only=True forbids the download that is needed; leave it out.")
    with hub_errors(f"{repo_id!r}, file {filename!r}, revision {options.revision or 'main'!r}"):
        return Path(
            hf_hub_download(
                repo_id,
                filename,
                revision=options.revision,
                cache_dir=None if options.cache_dir is None else Path(options.cache_dir),
                token=options.token,
                local_files_only=options.local_files_only,
                force_download=options.force_download,
                library_name="iir_sdk",
                library_version=iir_sdk.__version__,
            )
        )


def upload(folder: Path, repo_id: str, *, token: str | bool | None, private: bool | None, message: str) -> str:
    """Create a repository if there is none, commit a folder's files to it, and give the commit, 40 hex digits."""
    with hub_errors(f"{repo_id!r}"):
        api = HfApi(token=token, library_name="iir_sdk", library_version=iir_sdk.__version__)
        api.create_repo(repo_id, private=private, exist_ok=True)
        # One commit, or none at all: upload_folder may make several.
        files = [CommitOperationAdd(file.name, file) for file in sorted(folder.iterdir())]
        return str(api.create_commit(repo_id, files, commit_message=message).oid)


def set_aside(file: Path, seen: tuple[int, int] | None) -> Path:
    """Rename a bad file of the cache so that nothing takes it for good, unless it is no longer the one ``seen``.

    One such copy is kept, and its path given; of a read-only cache an IntegrityError names the file and the cure.
    """
    # The cache shows a file by links; the bytes behind all of them have to go.
    real = file.resolve()
    aside = real.with_name(f"{real.name}.corrupt")
    try:
        if _identity(file) == seen:
            real.replace(aside)
    except OSError as error:
        raise IntegrityError(
            f"{file} is damaged and cannot be set aside ({error}). Delete it, or pass another cache_dir."
        ) from error
    return aside


def _identity(file: Path) -> tuple[int, int] | None:
    """Tells a file from its successor of the same name; None if there is none."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn what the client raises into errors of this package that say what to do."""
    try:
        yield
    except IirError:
        raise
    except _CLIENT_ERRORS as error:
        raise _translated(error, what) from error


def _translated(error: Exception, what: str) -> IirError:
    reason: BaseException = error
    # The client wraps what happened; the innermost says why.
    while isinstance(reason, (LocalEntryNotFoundError, ValueError, RuntimeError)) and reason.__cause__ is not None:
        reason = reason.__cause__
    if isinstance(reason, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
        return WeightsNotFoundError(
            f"{what} is not in the cache, and the network is switched off (local_files_only or HF_HUB_OFFLINE). "
            "Download it once while online (iir-sdk weights download), or check the path if a folder was meant."
        )
    if isinstance(reason, HFValidationError):
        return WeightsNotFoundError(f"{what} is no repository name: {reason}")
    for client_kind, kind, message in _ANSWERS:
        if isinstance(reason, client_kind):
            return kind(message.format(what))
    status = getattr(getattr(reason, "response", None), "status_code", None)
    if status in (401, 403):
        return HubAccessError(f"the Hub refuses {what} (HTTP {status}); pass a token that may, or: hf auth login")
    if status == 429:
        return HubError(f"the Hub asks to slow down (HTTP 429) on {what}; wait some minutes, or log in: hf auth login")
    if status is not None:
        return HubError(f"the Hub failed on {what} (HTTP {status}); try again later. {_first_line(reason)}")
    code = getattr(reason, "errno", None)
    if code in _NO_ROOM:
        return OutputError(f"no room to download {what}: {reason}. Free some, or pass another cache_dir.")
    if code in _NOT_WRITABLE:
        return OutputError(f"the cache cannot be written for {what}: {reason}. Pass another cache_dir.")
    return HubError(f"{what} could not be had from the Hub: {_first_line(reason)} Check the connection and try again.")


def _first_line(error: BaseException) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return text if text.endswith(".") else f"{text}."
