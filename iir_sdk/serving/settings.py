"""What a server runs, in words that travel to its replicas."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from iir_sdk.engines.base import Backend
from iir_sdk.errors import ConfigError, OutputError
from iir_sdk.files import is_file, made_folder, write_text_atomically
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.serving.batching import Batching
from iir_sdk.serving.replica import Replica
from iir_sdk.serving.set_folder import SetFolder
from iir_sdk.web.api.limits import Limits

MARK = ".iir-serving"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of every replica.

    Attributes:
        sets: folder of the sets, the same for all replicas; absolute.
        mark: what a file in it says, see :func:`marked`.
        weights: see :class:`iir_sdk.FewShotSegmenter`; likewise the following. A file lies on every machine.
        limits: of requests.
        batching: of predictions.
    """

    sets: str
    mark: str
    weights: str | None = None
    backend: Backend = "torch"
    device: str = "auto"
    dtype: str | None = None
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)

    def check(self, *, here: bool) -> None:
        """Raise what each replica would raise of its weights, before any is started; ``here`` they run on this machine.

        On others a device or runtime may be there that this one lacks, so there of the weights alone.

        Raises:
            IirError: see :class:`iir_sdk.FewShotSegmenter`.
        """
        if here:
            self._segmenter()
        else:
            FewShotSegmenter(self.weights)

    def _segmenter(self) -> FewShotSegmenter:
        return FewShotSegmenter(
            self.weights, device=self.device, dtype=self.dtype, backend=self.backend, threads=self.threads
        )

    def opened(self) -> Replica:
        """A replica; raises as :class:`iir_sdk.FewShotSegmenter` does.

        Raises:
            OutputError: this machine does not see the folder of sets.
        """
        folder = Path(self.sets)
        if _mark_of(folder) != self.mark:
            raise OutputError(
                f"{self.sets!r} is not the same folder on every machine: pass --sets of one that all machines share."
            )
        sets = SetFolder(self._segmenter(), folder, max_bytes=self.limits.set_bytes, seconds=self.limits.seconds)
        return Replica(sets, self.limits, self.batching)


@dataclass(frozen=True)
class Replicas:
    """How many there are, and what each is given.

    Attributes:
        least: that are there.
        most: that are there under load.
        num_gpus: of each, or a share of one.
        num_cpus: of each.
    """

    least: int = 1
    most: int = 1
    num_gpus: float = 0.0
    num_cpus: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges; a ConfigError names the value."""
        if not 1 <= self.least <= self.most:
            raise ConfigError(f"replicas={self.least}-{self.most} must be a number from 1 on, or two as 1-4.")
        if self.num_gpus < 0 or (self.num_gpus > 1 and self.num_gpus != int(self.num_gpus)):
            raise ConfigError(f"num_gpus={self.num_gpus} must be 0, a share of a GPU such as 0.5, or a whole number.")

    @classmethod
    def of(cls, text: str, *, num_gpus: float = 0.0, num_cpus: float = 1.0) -> Replicas:
        """From ``4``, or ``1-4``; a ConfigError where it is neither."""
        least, _, most = text.partition("-")
        try:
            bounds = int(least), int(most or least)
        except ValueError as error:
            raise ConfigError(f"replicas={text!r:.40} must be a number from 1 on, or two as 1-4.") from error
        return cls(*bounds, num_gpus=num_gpus, num_cpus=num_cpus)


def marked(folder: Path) -> str:
    """A text that a file in the folder, made where it is missing, says: by it replicas tell that they see the same one.

    Raises:
        OutputError: it cannot be made, or not written into.
    """
    made_folder(folder)
    if not _mark_of(folder):
        write_text_atomically(folder / MARK, secrets.token_hex(16))
    return _mark_of(folder)


def _mark_of(folder: Path) -> str:
    return (folder / MARK).read_text(encoding="utf-8") if is_file(folder / MARK) else ""
