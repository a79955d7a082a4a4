"""A project's labelling interface: which tags draw on which picture, and by which labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast
from xml.etree import ElementTree

from iir_sdk.errors import RequestError

Kind: TypeAlias = Literal["brushlabels", "polygonlabels", "rectanglelabels"]
_KINDS = ("brushlabels", "polygonlabels", "rectanglelabels")
_LONGEST = 1 << 20


@dataclass(frozen=True)
class Control:
    """A tag that draws.

    Attributes:
        name: of the tag, results' ``from_name``.
        picture: the tag of the picture that it draws on, results' ``to_name``.
        kind: what it draws, results' ``type``.
        labels: by which labels.
    """

    name: str
    picture: str
    kind: Kind
    labels: tuple[str, ...]


@dataclass(frozen=True)
class LabelConfig:
    """What draws on a project's pictures.

    Attributes:
        controls: brushes, polygons and rectangles on one picture, in their order.
        key: where tasks' data name that picture.
    """

    controls: tuple[Control, ...]
    key: str

    def drawing(self, label: str) -> Control | None:
        """What masks of a label are drawn by: the first brush or polygon tag that has it."""
        able = (c for c in self.controls if c.kind != "rectanglelabels" and label in c.labels)
        return next(able, None)

    def labels(self, known: Iterable[str]) -> list[str]:
        """Which of some labels masks can be drawn of."""
        return [label for label in known if self.drawing(label) is not None]


def read_config(text: str) -> LabelConfig:
    """Read a labelling interface, as Label Studio sends it.

    Raises:
        RequestError: no XML, or nothing in it draws masks on a picture.
    """
    if len(text) > _LONGEST or "<!" in text.replace("<!--", ""):
        raise RequestError(
            "the labelling interface is too long, or declares entities; send it as Label Studio keeps it."
        )
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise RequestError(f"the labelling interface is no XML: {error}.") from error
    pictures = {tag.get("name", ""): tag.get("value", "") for tag in root.iter("Image")}
    controls = [control for tag in root.iter() if (control := _control(tag)) and control.picture in pictures]
    able = [c for c in controls if c.kind != "rectanglelabels"]
    if not able:
        raise RequestError(
            "the labelling interface draws no masks: add <BrushLabels name='brush' toName='image'> or <PolygonLabels> "
            "with labels, on an <Image name='image' value='$image'/>."
        )
    # Of interfaces of several pictures, the one that the first mask is drawn on.
    picture = able[0].picture
    return LabelConfig(tuple(c for c in controls if c.picture == picture), pictures[picture].removeprefix("$"))


def _control(tag: ElementTree.Element) -> Control | None:
    kind = tag.tag.lower()
    if kind not in _KINDS:
        return None
    # Results name a label by its alias, where it has one.
    labels = tuple(each.get("alias") or each.get("value") or "" for each in tag.iter("Label"))
    return Control(tag.get("name", ""), tag.get("toName", ""), cast(Kind, kind), labels)
