"""What every writer of results does: a folder of its own, files of one picture at a time, joint files at the end."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import LabelError, OutputError
from iir_sdk.files import made_folder, write_text_atomically
from iir_sdk.formats.large import LargeResult, Strips, renumbered

if TYPE_CHECKING:
    from iir_sdk.results.segmentation import Segmentation

LABELS_FILE = "labels.txt"
_HALF = ".iir-"
"""How names of files begin that are being written, see :func:`iir_sdk.files.write_atomically`."""


class Writer(ABC):
    """Writes results in one format into a folder of its own; a run that was killed goes on in the same folder.

    What belongs to one picture is written by :meth:`add`, each file in one step; :meth:`finish` makes what belongs to
    all pictures from the files that lie in the folder, those of earlier runs as well. ``labels.txt`` names the labels,
    one a line, in their order. Of several labels, each has the pixels that ``label_map`` gives it.

    Args:
        folder: made where it is missing.
        labels: of all results that will be added, in the order of their numbers.

    Raises:
        LabelError: labels that are missing, double, empty or longer than a line.
        OutputError: the folder cannot be made, or holds files of other labels.
    """

    suffix: str
    """Of the file that each picture gets."""
    below = ""
    """The folder of these files, within the writer's own."""
    takes_large = False
    """Whether :meth:`add` takes results of pictures too large for memory."""

    def __init__(self, folder: str | os.PathLike[str], labels: Sequence[str]) -> None:
        self.folder, self.labels = Path(folder), tuple(labels)
        bad = [label for label in self.labels if not label.strip() or len(label.splitlines()) != 1]
        if isinstance(labels, str) or not self.labels or bad or len(set(self.labels)) < len(self.labels):
            raise LabelError(f"labels={labels!r} must be several names, or one in a list: each one line, none twice.")
        made_folder(self.folder)
        self._claim()
        # Starts of files that a process left when it was killed: tools would take them for pictures.
        for half in self.folder.rglob(f"{_HALF}*"):
            with suppress(OSError):
                half.unlink()

    def _claim(self) -> None:
        """Write the labels' order, or hold an earlier run's to it: its files hold numbers."""
        file = self.folder / LABELS_FILE
        try:
            present = file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            write_text_atomically(file, "".join(f"{label}\n" for label in self.labels))
            return
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot read {str(file)!r} ({error}); name another folder.") from error
        if tuple(present) != self.labels:
            raise OutputError(
                f"{str(self.folder)!r} holds files of labels {present}, not of {list(self.labels)}; "
                "name another folder, or the same labels in the same order."
            )

    def add(self, name: str, result: Segmentation | LargeResult, source: str | os.PathLike[str] | None = None) -> None:
        """Write what belongs to one picture; what lay there under the same name is replaced.

        Args:
            name: of the picture in the output, without its suffix, with ``/`` between folders, as in ``"field/a"``;
                two pictures need two names.
            result: its masks; of a picture too large for memory where the format :attr:`takes_large`.
            source: the picture's file; None for one that is in no file.

        Raises:
            LabelError: the result has a label that the writer was not made with.
            OutputError: a name that is no path within the folder, a picture too large for the format, or a file that
                cannot be written.
        """
        strange = [label for label in result.labels if label not in self.labels]
        if strange:
            raise LabelError(f"this result has label {strange[0]!r}; the writer was made for {list(self.labels)}.")
        for file in self.files(name):
            made_folder(file.parent)
        place = None if source is None else Path(source)
        if isinstance(result, LargeResult):
            self._write_large(name, result, place)
        else:
            self._write(name, result, place)

    @abstractmethod
    def _write(self, name: str, result: Segmentation, source: Path | None) -> None:
        """Write what :meth:`files` names; their folders are there."""

    def _write_large(self, name: str, result: LargeResult, source: Path | None) -> None:
        """As :meth:`_write`; of formats that cannot, an error."""
        raise OutputError(
            f"{type(self).__name__} needs the whole picture of {name!r}, which is too large for memory; write it by "
            "'map' or 'geotiff'."
        )

    def file(self, name: str) -> Path:
        """The file that :meth:`add` writes of a picture of this name."""
        return self.folder / self.below / f"{_checked(name)}{self.suffix}"

    def files(self, name: str) -> tuple[Path, ...]:
        """All such files of formats that write several, and else the one; what :meth:`holds` looks for."""
        return (self.file(name),)

    def holds(self, name: str) -> bool:
        """Whether the folder holds every file of a picture, of this run or an earlier one."""
        return all(file.is_file() for file in self.files(name))

    def finish(self) -> None:  # noqa: B027 - few formats have any
        """Make what belongs to all pictures, from what the folder holds; more may be added, and finished, later."""

    def names(self) -> Iterator[str]:
        """Names of the pictures that have such a file, sorted."""
        folder = self.folder / self.below
        for file in sorted(folder.rglob(f"*{self.suffix}")):
            if not file.name.startswith(_HALF):
                yield file.relative_to(folder).as_posix().removesuffix(self.suffix)

    def label_map(self, result: Segmentation) -> NDArray[np.integer[Any]]:
        """Integers ``(H, W)``: 0 for background, ``i + 1`` for ``labels[i]`` of the writer."""
        return self._numbers(result.labels)[result.label_map]

    def strips(self, result: LargeResult) -> Strips:
        """The same of a picture too large for memory, a few rows at a time."""
        return renumbered(result.strips(), self._numbers(result.labels))

    def _numbers(self, labels: Sequence[str]) -> NDArray[np.integer[Any]]:
        """The writer's numbers of background and of a result's labels."""
        numbers = np.array([0, *(self.labels.index(label) + 1 for label in labels)])
        return numbers.astype(np.min_scalar_type(len(self.labels)))

    def masks(self, result: Segmentation) -> dict[str, NDArray[np.bool_]]:
        """Bool ``(H, W)`` of every label of the writer; no pixel is in two of them."""
        places = self.label_map(result)
        return {label: places == i + 1 for i, label in enumerate(self.labels)}


def file_name_of(label: str) -> str:
    """A label as the name of a folder: what no name may hold is written as in a URL, ``cat/dog`` as ``cat%2Fdog``."""
    name = re.sub(r'[\x00-\x1f%/\\:*?"<>|]', lambda character: quote(character[0], safe=""), label)
    return f"{name[:-1]}%{ord(name[-1]):02X}" if name[-1] in ". " else name


def _checked(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not name or "\\" in name or "\0" in name or name.startswith("/") or name.endswith("/") or ".." in parts:
        raise OutputError(f"name={name!r} must be a path within the folder, with / between folders, as 'field/a'.")
    return name
