"""Strokes of the page as pixels: what was painted holds on the picture's own mask, whatever is predicted."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from iir_sdk.pictures.masks import UNKNOWN
from iir_sdk.web.project.marks import by_label, held_to, marks_of, outside_box, painted_pixels
from iir_sdk.web.project.state import Stroke
from iir_sdk.web.project.teaching import with_border

share = st.floats(-0.2, 1.2)
strokes = st.lists(
    st.builds(
        Stroke,
        id=st.just(0),
        picture=st.just("a"),
        label=st.integers(1, 2),
        kind=st.sampled_from(["object", "background", "erase"]),
        points=st.lists(st.tuples(share, share), min_size=1, max_size=4).map(tuple),
        radius=st.floats(0, 0.2),
    ),
    min_size=1,
    max_size=6,
).map(lambda drawn: [Stroke(i + 1, *vars_of(stroke)) for i, stroke in enumerate(drawn)])
sizes = st.tuples(st.integers(1, 50), st.integers(1, 50))


def vars_of(stroke: Stroke) -> tuple:
    return stroke.picture, stroke.label, stroke.kind, stroke.points, stroke.radius


def never(stroke, size):
    raise AssertionError("no box and no mask was given")


@given(strokes, sizes, st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_a_pictures_own_strokes_hold_on_its_mask(drawn, size, seed):
    places = np.random.default_rng(seed).integers(0, 4, size, np.uint8)
    before = places.copy()
    corrected = held_to(places, by_label(drawn), never)
    assert (places == before).all()
    marks = {label: marks_of(of_label, size, never) for label, of_label in by_label(drawn).items()}
    claimed = np.sum([m == 1 for m in marks.values()], 0)
    for label, of_label in marks.items():
        assert (corrected[(of_label == 1) & (claimed == 1)] == label).all()
        assert (corrected[(of_label == 0)] != label).all()
    # What nobody touched stays.
    untouched = np.all([m == UNKNOWN for m in marks.values()], 0)
    assert (corrected[untouched] == before[untouched]).all()
    # A pixel that two labels claim is the one's who painted it last, whatever was painted elsewhere since.
    painter = np.zeros(size, np.uint8)
    for stroke in drawn:
        rows, columns, painted = painted_pixels(stroke, size)
        if stroke.kind == "object":
            painter[rows, columns][painted] = stroke.label
    assert (corrected == painter)[claimed == 2].all()


@given(st.lists(st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)), min_size=1, max_size=4), st.floats(0.03, 0.1))
@settings(max_examples=80, deadline=None)
def test_a_brush_is_round_and_as_wide_as_it_says(points, radius):
    """Compared with the distance of each pixel's centre to the line."""
    height, width = 120, 160
    rows, columns, painted = painted_pixels(Stroke(1, "a", 1, "object", tuple(points), radius), (height, width))
    whole = np.zeros((height, width), np.bool_)
    whole[rows, columns] = painted
    y, x = np.mgrid[:height, :width] + 0.5
    here = np.array(points) * (width, height)
    distance = np.full((height, width), np.inf)
    for (x0, y0), (x1, y1) in zip(here, [*here[1:], here[-1]], strict=True):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        along = 0 if length == 0 else np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0, 1)
        distance = np.minimum(distance, np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)))
    reach = radius * width
    assert whole[distance < reach - 2].all()
    assert not whole[distance > reach + 2].any()


def test_while_no_background_is_known_it_is_the_border_but_near_the_object():
    marks = np.full((100, 200), UNKNOWN, np.uint8)
    marks[40:60, 10:30] = 1
    bordered = with_border(marks)
    assert (bordered[marks == 1] == 1).all() and (bordered[10:90, 60:190] == UNKNOWN).all()
    assert (bordered[:8, 60:] == 0).all() and (bordered[:, -8:] == 0).all()
    assert (bordered[24:76, :46] != 0).all()


def test_painting_is_taken_back_to_what_a_mask_said_and_a_box_says_what_is_outside():
    mask = np.zeros((10, 20), np.uint8)
    mask[:, :10] = 1
    whole = Stroke(1, "a", 1, "mask", mask="m.png")
    paint = Stroke(2, "a", 1, "background", ((0.25, 0.5),), 0.1)
    erase = Stroke(3, "a", 1, "erase", ((0.25, 0.5),), 0.2)
    painted = marks_of([whole, paint], (10, 20), lambda stroke, size: mask)
    assert painted[5, 5] == 0 and (marks_of([whole, paint, erase], (10, 20), lambda stroke, size: mask) == mask).all()
    assert (marks_of([paint, erase], (10, 20), never) == UNKNOWN).all()
    assert (marks_of([paint, Stroke(4, "a", 1, "not_here")], (10, 20), never) == 0).all()
    outside = outside_box(Stroke(1, "a", 1, "box", box=(0.5, 0, 1, 0.5)), (10, 20))
    assert (outside[:5, 10:] == UNKNOWN).all() and (outside[:, :10] == 0).all() and (outside[5:] == 0).all()


def test_a_stroke_elsewhere_takes_no_pixel_back_from_another_label():
    first = Stroke(1, "a", 1, "object", ((0.25, 0.5),), 0.1)
    over = Stroke(2, "a", 2, "object", ((0.25, 0.5),), 0.1)
    elsewhere = Stroke(3, "a", 1, "object", ((0.75, 0.5),), 0.1)
    corrected = held_to(np.zeros((20, 40), np.uint8), by_label([first, over, elsewhere]), never)
    assert corrected[10, 10] == 2 and corrected[10, 30] == 1


def boxed(number: int, *box: float) -> Stroke:
    return Stroke(number, "a", 1, "box", box=box)


def test_boxes_in_a_row_are_of_several_things_and_a_mask_begins_anew():
    """A second box replaced the first one's thing."""

    def inside(stroke: Stroke, size: tuple[int, int]) -> np.ndarray:
        return np.zeros(size, np.uint8) if stroke.mask else (outside_box(stroke, size) == UNKNOWN).astype(np.uint8)

    size = (10, 20)
    one, other = boxed(1, 0, 0, 0.2, 0.5), boxed(4, 0.5, 0, 0.9, 0.5)
    both = marks_of([one, other], size, inside)
    assert (both == np.maximum(inside(one, size), inside(other, size))).all()
    # What was painted in between stays, but not in the new thing, and is taken back to both.
    away = Stroke(2, "a", 1, "background", ((0.1, 0.2),), 0.03)
    there = Stroke(3, "a", 1, "background", ((0.7, 0.2),), 0.03)
    marks = marks_of([one, away, there, other], size, inside)
    assert marks[2, 2] == 0 and marks[2, 14] == 1
    rubbed = Stroke(5, "a", 1, "erase", ((0.1, 0.2),), 0.1)
    assert (marks_of([one, away, there, other, rubbed], size, inside) == both).all()
    # By themselves they say what is outside of all of them.
    held = marks_of([one, other], size, outside_box)
    assert ((held == UNKNOWN) == (both == 1)).all() and (held[both == 0] == 0).all()
    mask = Stroke(6, "a", 1, "mask", mask="m.png")
    assert (marks_of([one, mask, other], size, inside) == inside(other, size)).all()
