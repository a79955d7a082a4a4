"""From a name, path or repository to a verified checkpoint."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from iir_sdk.errors import IirError, IntegrityError, WeightsError, WeightsNotFoundError
from iir_sdk.files import is_file, is_folder
from iir_sdk.records import did_you_mean
from iir_sdk.weights.checkpoint_file import WEIGHTS_FILE, Checkpoint, read_checkpoint
from iir_sdk.weights.entry import EXPORT_RECORD, REPO_ID, WeightsEntry
from iir_sdk.weights.hub import HubOptions, fetch
from iir_sdk.weights.manifest import DEFAULT, PACKAGE, known_weights, parse_json, read_json

CONFIG_FILE = "config.json"
_INSTALL_AGAIN = "Install iir_sdk again: pip install --force-reinstall --no-deps iir-sdk"


def load_checkpoint(
    name_or_path: str | os.PathLike[str] | None = None, options: HubOptions | None = None
) -> Checkpoint:
    """Find, verify and load a checkpoint: embedded, then on disk, then the manifest's on the Hub, then any on the Hub.

    Args:
        name_or_path: a manifest name, a ``.safetensors`` file, a folder with ``model.safetensors``, or ``owner/name``
            on the Hub; None is the embedded default.
        options: how to ask the Hub; ``revision`` and ``force_download`` pass over the embedded copy.

    Raises:
        WeightsNotFoundError: it leads nowhere.
        IntegrityError: the bytes or tensors are not the expected ones.
        WeightsError: the file is not a checkpoint of this package.
        ConfigError: its architecture is out of bounds.
        HubError, OutputError: the Hub did not deliver, or its cache cannot be written.
    """
    options = options or HubOptions()
    known = known_weights()
    name = DEFAULT if name_or_path is None else os.fspath(name_or_path)
    # A Path is never a name.
    entry = known.get(name) if name_or_path is None or isinstance(name_or_path, str) else None
    if entry and entry.embedded and not options.ask_for_the_hub:
        return read_checkpoint(embedded_file(entry), entry, cure=_INSTALL_AGAIN)
    if not (entry and entry.embedded) and os.path.exists(name):  # noqa: PTH110 - Path.exists raises on names that no file can have
        return _from_disk(Path(name))
    if entry:
        return _from_manifest(entry, options)
    if isinstance(name_or_path, str) and REPO_ID.fullmatch(name):
        return _from_hub(name, options)
    raise WeightsNotFoundError(
        f"{name!r} is neither a file, a folder with {WEIGHTS_FILE}, a repository 'owner/name' on the Hub, "
        f"nor a known name{did_you_mean(name, known)}"
    )


def download_checkpoint(name: str, options: HubOptions) -> Checkpoint:
    """A checkpoint from the Hub, or the Hub's cache, even where a copy is embedded or on disk."""
    known = known_weights()
    if name in known:
        return _from_manifest(known[name], options)
    if REPO_ID.fullmatch(name):
        return _from_hub(name, options)
    raise WeightsNotFoundError(f"{name!r} is no repository 'owner/name' and no known name{did_you_mean(name, known)}")


def embedded_file(entry: WeightsEntry) -> Path:
    """Where the package keeps an embedded checkpoint."""
    return PACKAGE / "checkpoints" / f"{entry.name}.safetensors"


def _from_disk(path: Path) -> Checkpoint:
    if not is_folder(path):
        return read_checkpoint(path)
    config = path / CONFIG_FILE
    entry = WeightsEntry.from_config(read_json(config), str(config)) if is_file(config) else None
    file = path / (entry.filename if entry else WEIGHTS_FILE)
    if is_file(path / EXPORT_RECORD) and not is_file(file):
        raise WeightsNotFoundError(
            f"{str(path)!r} holds exported graphs and no weights; pass backend='onnxruntime' or backend='openvino'."
        )
    cure = f"It must be the one that {CONFIG_FILE} beside it names." if entry else "Name a folder that holds it."
    return read_checkpoint(file, entry, stated_by=CONFIG_FILE, cure=cure)


def _from_manifest(entry: WeightsEntry, options: HubOptions) -> Checkpoint:
    entry.check_sdk_version()
    if entry.repo_id is None:
        at_hand = "; it is embedded and loads without a download." if entry.embedded else "."
        raise WeightsNotFoundError(f"checkpoint {entry.name!r} is not on the Hub yet{at_hand}")
    if options.revision not in (None, entry.revision):
        return _from_hub(entry.repo_id, options)
    options = replace(options, revision=entry.revision)
    return fetch(entry.repo_id, entry.filename, options, partial(read_checkpoint, pinned=entry, cure=""))


def _from_hub(repo_id: str, options: HubOptions) -> Checkpoint:
    """Any repository: its config.json says what the weights must be, at one and the same commit."""
    config, commit = fetch(repo_id, CONFIG_FILE, options, _bytes_and_commit)
    at_commit = replace(options, revision=commit)
    try:
        return _as_stated(repo_id, config, at_commit)
    except WeightsError:
        # A damaged configuration may still be JSON, and then blames sound weights: see whether a fresh one differs.
        if options.local_files_only or options.force_download:
            raise
        try:
            fresh, _ = fetch(repo_id, CONFIG_FILE, replace(at_commit, force_download=True), _bytes_and_commit)
        except IirError:
            # The first reason is the one to report.
            fresh = config
        if fresh == config:
            raise
        return _as_stated(repo_id, fresh, at_commit)


def _as_stated(repo_id: str, config: bytes, options: HubOptions) -> Checkpoint:
    entry = WeightsEntry.from_config(parse_json(config, f"{repo_id}/{CONFIG_FILE}"), f"{repo_id}/{CONFIG_FILE}")
    entry.check_sdk_version()
    entry = replace(entry, published=True, repo_id=repo_id, revision=options.revision)
    read = partial(read_checkpoint, pinned=entry, stated_by=f"{repo_id}/{CONFIG_FILE}", cure="")
    return fetch(repo_id, entry.filename, options, read)


def _bytes_and_commit(config: Path) -> tuple[bytes, str]:
    """A cached config.json, and the commit whose folder it lies in."""
    content = config.read_bytes()
    try:
        parse_json(content, str(config))
    except WeightsError as error:
        raise IntegrityError(str(error)) from error
    return content, config.parent.name
