"""What is known of a project at a moment: written by the thread that computes, read by all."""

from __future__ import annotations

from dataclasses import dataclass, field

from iir_sdk.engines.base import EngineIdentity
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
