"""What is known of a checkpoint: a frozen and checked record, in a manifest or in a saved folder's config.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from packaging.version import InvalidVersion, Version

import iir_sdk
from iir_sdk.errors import IntegrityError, WeightsError
from iir_sdk.model.config import ModelConfig
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.records import CheckedRecord, Rule, matching, text, within

LARGEST_FILE = 2 * 1024**3
"""Most bytes of a checkpoint file."""

CONFIG_FORMAT = "iir_sdk.config/1"
EXPORT_RECORD = "export.json"
"""The file by which a folder is an export of graphs; it holds the checkpoint's entry."""
UNSTATED = "not stated"
REPO_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")

_PLACE = ("embedded", "published", "repo_id", "revision")


def _is_version(value: str) -> bool:
    try:
        return len(value) <= 40 and bool(Version(value))
    except InvalidVersion:
        return False


_Line = Annotated[str, text(200)]
_Note = Annotated[str, text(shortest=0)]
_Share = Annotated[float, within(0, 1)]
_Sha256 = Annotated[str, matching(r"[0-9a-f]{64}", "64 lower-case hex digits")]
_Commit = Annotated[str, matching(r"[0-9a-f]{40}", "a commit of 40 lower-case hex digits")]
_Name = Annotated[str, matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", "letters, digits, '.', '_' or '-', 96 at most")]
_Filename = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}\.safetensors", "a plain file name that ends in .safetensors"),
]
_RepoId = Annotated[str, matching(REPO_ID, "owner/name")]
_Version = Annotated[str, Rule(_is_version, "a version number")]


@dataclass(frozen=True)
class EvaluationProtocol(CheckedRecord, error=WeightsError):
    """How a metric was measured."""

    episodes: Annotated[int, within(1, 10**9)]  # of each set
    shots: Annotated[int, within(1, 10**4)]  # supports of an episode
    seeds: tuple[Annotated[int, within(0, 2**63)], ...]  # of the episodes; scores are their mean
    min_share: _Share  # smallest share of its picture that an object covers
    input_pixels: Annotated[int, within(1, 10**5)]  # side of the network's input
    scored_at: _Line  # at which size masks are compared


@dataclass(frozen=True)
class SetMetric(CheckedRecord, error=WeightsError):
    """Scores on one set, mIoU over its classes and FB-IoU, in [0, 1]."""

    name: _Line
    miou: _Share
    fb_iou: _Share


@dataclass(frozen=True)
class Metric(CheckedRecord, error=WeightsError):
    """One measurement."""

    title: _Line  # what was measured
    mean_miou: _Share  # mean over the sets of their mIoU, in [0, 1]
    sets: tuple[SetMetric, ...]  # score of each set
    protocol: EvaluationProtocol  # how
    sha256: _Sha256  # of what was measured, not the entry's where a recipe was, with classes held out


@dataclass(frozen=True)
class WeightsEntry(CheckedRecord, error=WeightsError):
    """One checkpoint of the manifest.

    Attributes:
        name: what ``from_pretrained`` takes.
        description: one line.
        filename: of the checkpoint in its repository or folder.
        size: bytes.
        sha256: of the file, 64 hex digits.
        min_sdk_version: oldest ``iir_sdk`` that can load it.
        model: architecture.
        preprocessing: what its pictures go through.
        parameters: number of parameters, backbone included.
        license: SPDX identifier of the weights' licence, or ``not stated``.
        license_note: one line on it, or "".
        training_data: sets it was trained on.
        metrics: scores with the protocol they were measured by.
        embedded: whether the file travels in the package.
        published: whether it can be had from the Hub.
        repo_id: its repository on the Hub, ``owner/name``, or None.
        revision: pinned 40-hex commit on the Hub, or None.
    """

    name: _Name
    description: _Note
    filename: _Filename
    size: Annotated[int, within(1, LARGEST_FILE)]
    sha256: _Sha256
    min_sdk_version: _Version
    model: ModelConfig
    preprocessing: Preprocessing
    parameters: Annotated[int, within(1, 10**10)]
    license: _Line
    license_note: _Note
    training_data: tuple[_Line, ...]
    metrics: tuple[Metric, ...]
    embedded: bool = False
    published: bool = False
    repo_id: _RepoId | None = None
    revision: _Commit | None = None

    def __post_init__(self) -> None:
        """Check every field, and that a published checkpoint is pinned and an unpublished one has no address.

        Raises:
            WeightsError: naming the field.
        """
        super().__post_init__()
        if self.published != (self.repo_id is not None) or self.published != (self.revision is not None):
            raise WeightsError(
                f"published={self.published} with repo_id={self.repo_id!r} and revision={self.revision!r}: "
                "a published checkpoint must have both, an unpublished one neither."
            )

    @classmethod
    def from_config(cls, values: object, where: str = "config.json") -> WeightsEntry:
        """Build from what :meth:`to_config` gives; anything else is a WeightsError."""
        if not isinstance(values, Mapping) or values.get("format") != CONFIG_FORMAT:
            raise WeightsError(f"{where} is not the configuration of an iir_sdk checkpoint (format {CONFIG_FORMAT!r}).")
        return cls.from_dict({k: v for k, v in values.items() if k != "format"}, where)

    def to_config(self) -> dict[str, Any]:
        """Plain values for a config.json beside the weights: all but where they can be had."""
        return {"format": CONFIG_FORMAT} | {k: v for k, v in self.to_dict().items() if k not in _PLACE}

    def check_sdk_version(self) -> None:
        """Refuse a checkpoint that asks for a newer ``iir_sdk``, by a WeightsError."""
        if Version(iir_sdk.__version__) < Version(self.min_sdk_version):
            raise WeightsError(
                f"checkpoint {self.name!r} needs iir_sdk {self.min_sdk_version} or newer, this is "
                f"{iir_sdk.__version__}; run: pip install --upgrade iir-sdk"
            )


def check_same(name: str, pickled: str, embedded: str) -> None:
    """Hold the weights that a pickle names to those that the package embeds under that name; else an IntegrityError."""
    if pickled != embedded:
        raise IntegrityError(
            f"this was pickled with weights {name!r} of sha256 {pickled[:12]}..., but those of this version of iir_sdk "
            f"have {embedded[:12]}...; pickle and unpickle with one version."
        )
