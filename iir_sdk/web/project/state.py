"""What a project holds, as plain records, and how actions change it: each can be undone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeAlias

StrokeKind = Literal["object", "background", "erase", "box", "mask", "not_here", "guess"]
VerdictKind = Literal["accepted", "rejected"]
Point: TypeAlias = "tuple[float, float]"

SETTINGS_KEY = "settings"
"""The only key of the table of settings."""


@dataclass(frozen=True)
class Label:
    """A kind of thing.

    Attributes:
        id: 1 to 254, never given twice in a project: accepted masks hold it.
        name: one line, no two alike.
        color: ``#rrggbb``.
    """

    id: int
    name: str
    color: str


@dataclass(frozen=True)
class Stroke:
    """What was said about a label in a picture by one movement of the hand.

    Attributes:
        id: grows with time.
        picture: the picture's id.
        label: the label's id.
        kind: painted as ``object`` or ``background``, or painting taken back (``erase``); a ``box`` around the object,
            a whole ``mask``, or ``not_here``: nothing of the label is in this picture. A ``guess`` is nobody's: what
            was predicted for sure before the first stroke.
        points: of painting, shares of width and height.
        radius: of painting, a share of the longer side.
        box: left, top, right, bottom, shares of width and height.
        mask: name of the project's file with it, of a mask or guess.
    """

    id: int
    picture: str
    label: int
    kind: StrokeKind
    points: tuple[Point, ...] = ()
    radius: float = 0.0
    box: tuple[float, float, float, float] | None = None
    mask: str = ""


@dataclass(frozen=True)
class Verdict:
    """What was decided about a picture: accepted with the mask of a file, or rejected."""

    picture: str
    kind: VerdictKind
    mask: str = ""


@dataclass(frozen=True)
class Settings:
    """Where probabilities become masks, see :class:`iir_sdk.results.segmentation.Cut`."""

    threshold: float = 0.5
    absent_below: float = 0.0


Record: TypeAlias = "Label | Stroke | Verdict | Settings"
Table = Literal["labels", "strokes", "verdicts", "settings"]
_KINDS: dict[Table, type[Any]] = {"labels": Label, "strokes": Stroke, "verdicts": Verdict, "settings": Settings}
_OF_SUPPORTS: tuple[Table, ...] = ("strokes", "settings")
"""Not labels: what is said of one goes with it, and its name and colour change no mask."""


@dataclass(frozen=True)
class Edit:
    """A record in a table that becomes another one; None is no record."""

    table: Table
    key: int | str
    before: Record | None
    after: Record | None

    @property
    def reversed(self) -> Edit:
        """What takes it back."""
        return replace(self, before=self.after, after=self.before)


@dataclass(frozen=True)
class Action:
    """What a user did.

    Attributes:
        name: a word for it, as ``stroke``.
        picture: the one it was done on; empty for none.
        edits: all that it changed.
    """

    name: str
    picture: str
    edits: tuple[Edit, ...]

    @property
    def reversed(self) -> Action:
        """What takes it back."""
        return replace(self, edits=tuple(edit.reversed for edit in reversed(self.edits)))

    @property
    def changes_predictions(self) -> bool:
        """Whether masks are to be predicted anew."""
        return any(edit.table in _OF_SUPPORTS for edit in self.edits)


@dataclass
class State:
    """The tables, each by key: ids of labels, strokes and pictures."""

    labels: dict[int, Label] = field(default_factory=dict)
    strokes: dict[int, Stroke] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    settings: dict[str, Settings] = field(default_factory=lambda: {SETTINGS_KEY: Settings()})

    TABLES: ClassVar[tuple[Table, ...]] = ("labels", "strokes", "verdicts", "settings")

    def after(self, action: Action) -> State:
        """The state with an action done; this one stays."""
        tables: dict[str, dict[Any, Any]] = {table: dict(getattr(self, table)) for table in self.TABLES}
        for edit in action.edits:
            if edit.after is None:
                tables[edit.table].pop(edit.key, None)
            else:
                tables[edit.table][edit.key] = edit.after
        for table in ("labels", "strokes"):
            # What was taken back stands again where it stood.
            tables[table] = dict(sorted(tables[table].items()))
        return State(**tables)

    @property
    def cut(self) -> Settings:
        """The settings."""
        return self.settings[SETTINGS_KEY]

    @property
    def touched(self) -> frozenset[str]:
        """Pictures in which anything was said."""
        return frozenset(stroke.picture for stroke in self.strokes.values())

    def strokes_of(self, picture: str, label: int | None = None) -> tuple[Stroke, ...]:
        """What was said in a picture, of all labels or one, in order."""
        return tuple(s for s in self.strokes.values() if s.picture == picture and label in (None, s.label))

    def by_picture_and_label(self) -> dict[tuple[str, int], tuple[Stroke, ...]]:
        """All strokes, by picture and label, in order."""
        lists: dict[tuple[str, int], list[Stroke]] = {}
        for stroke in self.strokes.values():
            lists.setdefault((stroke.picture, stroke.label), []).append(stroke)
        return {key: tuple(strokes) for key, strokes in lists.items()}


def plain(value: Record | Action | Edit) -> dict[str, Any]:
    """As JSON holds it."""
    return dataclasses.asdict(value)


def record_of(table: Table, values: Mapping[str, Any]) -> Record:
    """The inverse of :func:`plain`; a TypeError or ValueError where it is not one of this table."""
    fields: dict[str, Any] = dict(values)
    for name in ("points", "box"):
        if isinstance(fields.get(name), Sequence):
            fields[name] = tuple(tuple(v) if isinstance(v, (list, tuple)) else float(v) for v in fields[name])
    record: Record = _KINDS[table](**fields)
    return record


def action_of(values: Mapping[str, Any]) -> Action:
    """The inverse of :func:`plain`."""

    def record(table: Table, plain_values: Mapping[str, Any] | None) -> Record | None:
        return None if plain_values is None else record_of(table, plain_values)

    edits = tuple(
        Edit(e["table"], e["key"], record(e["table"], e["before"]), record(e["table"], e["after"]))
        for e in values["edits"]
    )
    return Action(str(values["name"]), str(values["picture"]), edits)
