"""What users do, as actions on a project's tables; each function checks what it is given."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from iir_sdk.errors import ConfigError, LabelError, MaskError
from iir_sdk.formats.writer import file_name_of
from iir_sdk.results.painting import COLOURS
from iir_sdk.results.segmentation import Cut
from iir_sdk.web.project.file import Held
from iir_sdk.web.project.state import (
    SETTINGS_KEY,
    Action,
    Edit,
    Label,
    Point,
    Settings,
    State,
    Stroke,
    StrokeKind,
    Verdict,
    VerdictKind,
)

LONGEST_NAME, MOST_LABELS, MOST_POINTS = 100, 254, 2_000
_LONGEST_FILE_NAME = 200
"""Bytes: systems hold 255."""
_COLOR = re.compile("#[0-9a-fA-F]{6}")
PAINTING = ("object", "background", "erase")
_SAID = (*PAINTING, "box", "mask", "not_here")


def label_named(state: State, name: str) -> Label:
    """The label of a name; a LabelError names those that there are."""
    for label in state.labels.values():
        if label.name == name:
            return label
    names = ", ".join(repr(label.name) for label in state.labels.values())
    raise LabelError(f"no label {name!r:.120}; labels: {names or 'none'}.")


def new_label(held: Held, name: str, color: str | None) -> Action:
    """A label under the next number; without a colour in the next one of :data:`COLOURS`."""
    number = held.last_label + 1
    if number > MOST_LABELS:
        raise LabelError(f"a project holds {MOST_LABELS} labels, those that were deleted as well: begin another one.")
    default = "#{:02x}{:02x}{:02x}".format(*COLOURS[(number - 1) % len(COLOURS)])
    label = Label(number, _name(held.state, name), default if color is None else _color(color))
    return Action("label", "", (Edit("labels", number, None, label),))


def changed_label(state: State, name: str, new_name: str | None, color: str | None) -> Action:
    """Another name or colour of a label."""
    label = label_named(state, name)
    changed = replace(
        label,
        name=label.name if new_name in (None, name) else _name(state, str(new_name)),
        color=label.color if color is None else _color(color),
    )
    return Action("label", "", (Edit("labels", label.id, label, changed),))


def removed_label(state: State, name: str) -> Action:
    """A label and all its strokes; accepted masks keep its number, and get it back with the label."""
    label = label_named(state, name)
    strokes = [s for s in state.strokes.values() if s.label == label.id]
    return Action("delete label", "", (*map(_removal, strokes), Edit("labels", label.id, label, None)))


def new_stroke(
    held: Held,
    picture: str,
    label: str,
    kind: StrokeKind,
    *,
    points: Sequence[Point] = (),
    radius: float = 0.0,
    box: Sequence[float] | None = None,
    mask: str = "",
    guess: str = "",
) -> Action:
    """One more stroke, before it a guess, where there is one; a decision about the picture falls with it."""
    if kind not in _SAID:
        raise ConfigError(f"kind={kind!r:.100} must be one of {', '.join(_SAID)}.")
    guesses = [Stroke(held.last_stroke + 1, picture, label_named(held.state, label).id, "guess", mask=guess)]
    stroke = Stroke(
        held.last_stroke + 2,
        picture,
        label_named(held.state, label).id,
        kind,
        _points(points) if kind in PAINTING else (),
        _radius(radius) if kind in PAINTING else 0.0,
        _box(box) if kind == "box" else None,
        mask,
    )
    edits = [Edit("strokes", said.id, None, said) for said in [*(guesses if guess else ()), stroke]]
    if picture in held.state.verdicts:
        edits.append(Edit("verdicts", picture, held.state.verdicts[picture], None))
    return Action("stroke", picture, tuple(edits))


def forgotten_strokes(state: State, picture: str, label: str | None) -> Action:
    """Without all that was painted in a picture, of one label or of all."""
    of_label = None if label is None else label_named(state, label).id
    return Action("start over", picture, tuple(map(_removal, state.strokes_of(picture, of_label))))


def decided(state: State, picture: str, kind: VerdictKind | None, mask: str = "") -> Action:
    """A picture accepted with the mask of a file, rejected, or neither (None)."""
    before = state.verdicts.get(picture)
    after = None if kind is None else Verdict(picture, kind, mask)
    name = {"accepted": "accept", "rejected": "reject", None: "reset"}[kind]
    return Action(name, picture, (Edit("verdicts", picture, before, after),))


def changed_settings(state: State, threshold: float | None, absent_below: float | None) -> Action:
    """Other settings; None leaves one as it is."""
    before = state.cut
    after = Settings(
        before.threshold if threshold is None else threshold,
        before.absent_below if absent_below is None else absent_below,
    )
    Cut(after.threshold, after.absent_below)
    return Action("settings", "", (Edit("settings", SETTINGS_KEY, before, after),))


def _removal(stroke: Stroke) -> Edit:
    return Edit("strokes", stroke.id, stroke, None)


def _name(state: State, name: str) -> str:
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise LabelError(f"label {name!r:.120} must be one line of 1 to {LONGEST_NAME} printable characters.")
    if not name.strip(".") or len(file_name_of(name).encode()) > _LONGEST_FILE_NAME:
        raise LabelError(
            f"label {name!r:.120} cannot name a folder of masks: choose a shorter name, not of dots alone."
        )
    if any(label.name == name for label in state.labels.values()):
        raise LabelError(f"there is a label {name!r} already; choose another name.")
    return name


def _color(color: str) -> str:
    if not _COLOR.fullmatch(color):
        raise ConfigError(f"color={color!r:.100} must be #rrggbb, as #ff4057.")
    return color.lower()


def _points(points: Sequence[Point]) -> tuple[Point, ...]:
    if not 1 <= len(points) <= MOST_POINTS:
        raise MaskError(f"a stroke has {len(points)} points; it needs 1 to {MOST_POINTS}.")
    if not all(math.isfinite(v) and -1 <= v <= 2 for point in points for v in point):
        raise MaskError(
            "a stroke's points must be shares of width and height, in [0, 1]; a little beyond does as well."
        )
    rounded = [(round(float(x), 5), round(float(y), 5)) for x, y in points]
    # A hand that rests gives the same point many times.
    return tuple(p for i, p in enumerate(rounded) if i == 0 or p != rounded[i - 1])


def _radius(radius: float) -> float:
    if not 0 <= radius <= 0.5:
        raise MaskError(f"radius={radius!r} must be a share of the longer side, in [0, 0.5].")
    return round(float(radius), 5)


def _box(box: Sequence[float] | None) -> tuple[float, float, float, float]:
    if box is None or len(box) != 4 or not all(math.isfinite(edge) for edge in box):
        raise MaskError(f"box={box!r:.100} must be left, top, right, bottom, as shares of width and height.")
    x0, y0, x1, y1 = (round(min(1.0, max(0.0, float(edge))), 5) for edge in box)
    if x1 <= x0 or y1 <= y0:
        raise MaskError(
            f"box={list(box)!r:.100} holds nothing of the picture: left < right and top < bottom, in [0, 1]."
        )
    return x0, y0, x1, y1
