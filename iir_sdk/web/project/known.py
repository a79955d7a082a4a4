"""What is known of a project at a moment: written by the thread that computes, read by all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from iir_sdk.engines.base import EngineIdentity
from iir_sdk.segmenting.journal import Stamp
from iir_sdk.supports.bank import SupportBank
from iir_sdk.web.project.file import Held, ProjectFolder
from iir_sdk.web.project.pictures import Shelf
from iir_sdk.web.project.predicted import Predicted


@dataclass
class Known:
    """A project's pictures, what its file holds, and what was made of it.

    Attributes:
        identity: the network's.
        project: the folder.
        shelf: the pictures.
        held: what the file holds; replaced as a whole.
        predicted: by picture; of an earlier version where it is not made anew yet.
        errors: why a picture cannot be used.
        bank: what was taught last; its labels are ids.
        unusable: why what was said of a picture and label could not be taught.
        other_weights: whether the project was last open with others.
        touched: pictures with strokes.
    """

    identity: EngineIdentity
    project: ProjectFolder
    shelf: Shelf
    held: Held
    predicted: dict[str, Predicted] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    bank: SupportBank = field(default_factory=SupportBank)
    unusable: dict[tuple[str, int], str] = field(default_factory=dict)
    other_weights: bool = False
    touched: frozenset[str] = frozenset()
    _failed_as: dict[str, Stamp] = field(default_factory=dict)

    def fail(self, picture: str, error: Exception) -> None:
        """Note why a picture cannot be used, as long as its file is what it is now."""
        file = self.shelf.file(picture)
        # Pages of others' machines need not know where pictures lie.
        self.errors[picture] = (str(error) or type(error).__name__).replace(str(file.path), file.name)
        self._failed_as[picture] = Stamp.of(str(file.path))

    def mended(self, pictures: Iterable[str]) -> list[str]:
        """Those that failed and whose files are others since, as on a disk that is there again."""
        failed = [picture for picture in pictures if picture in self.errors]
        return [p for p in failed if Stamp.of(str(self.shelf.file(p).path)) != self._failed_as[p]]
