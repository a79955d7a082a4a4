"""Records hold their fields to their annotations, and name the key, its value, what was expected and the cure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from iir_sdk.errors import ConfigError, WeightsError
from iir_sdk.records import CheckedRecord, above, at_least, did_you_mean, dotted_keys, matching, text, within


@dataclass(frozen=True)
class Lens(CheckedRecord, prefix="camera: lens."):
    length: Annotated[float, above(0)] = 50.0
    kind: Literal["prime", "zoom"] = "prime"


@dataclass(frozen=True)
class Camera(CheckedRecord, prefix="camera: "):
    maker: Annotated[str, text(10)]
    lens: Lens = field(default_factory=Lens)
    pixels: Annotated[int, within(1, 100)] = 12
    stops: tuple[Annotated[float, at_least(1)], ...] = (1.4, 2)
    size: tuple[int, int] = (3, 2)
    digital: bool = True
    serial: Annotated[str, matching("[0-9]+", "digits")] | None = None


@dataclass(frozen=True)
class Shelf(CheckedRecord, error=WeightsError):
    cameras: tuple[Camera, ...]
    best: Camera | None = None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pixels": 0}, "camera: pixels=0 must be an integer in [1, 100]."),
        ({"pixels": True}, "camera: pixels=True must be an integer in [1, 100]."),
        ({"pixels": 3.0}, "camera: pixels=3.0 must be an integer in [1, 100]."),
        ({"maker": "a\nb"}, "camera: maker='a\\nb' must be one line of 1 to 10 printable characters."),
        ({"maker": 3}, "camera: maker=3 must be one line of 1 to 10 printable characters."),
        ({"stops": [0.5]}, "camera: stops=(0.5,) must be a list, each a number of at least 1."),
        ({"stops": [float("nan")]}, "camera: stops=(nan,) must be a list, each a number of at least 1."),
        ({"stops": 3}, "camera: stops=3 must be a list, each a number of at least 1."),
        ({"size": [1, 2, 3]}, "camera: size=(1, 2, 3) must be a list of 2, each an integer."),
        ({"digital": 1}, "camera: digital=1 must be true or false."),
        ({"serial": "12a"}, "camera: serial='12a' must be digits, or null."),
        ({"lens": {"length": 0}}, "camera: lens.length=0 must be a number above 0."),
        ({"lens": {"length": float("inf")}}, "camera: lens.length=inf must be a number above 0."),
        ({"lens": {"kind": "fish"}}, "camera: lens.kind='fish' must be one of prime, zoom."),
        ({"lens": 5}, "camera: lens=5 must be a table of settings, Lens."),
        ({"lens": {"lenght": 5}}, "camera: unknown key 'lens.lenght'; did you mean 'lens.length'?"),
        ({"length": 5}, "camera: unknown key 'length'; did you mean 'lens.length'?"),
        ({"lens": {"pixels": 5}}, "camera: unknown key 'lens.pixels'; did you mean 'pixels'?"),
    ],
)
def test_a_message_names_record_key_value_and_what_was_expected(values, message):
    with pytest.raises(ConfigError) as caught:
        Camera.from_dict({"maker": "Pentax", **values})
    assert str(caught.value) == message


def test_what_is_missing_or_like_nothing():
    with pytest.raises(ConfigError, match="camera: key 'maker' is missing"):
        Camera.from_dict({})
    with pytest.raises(
        ConfigError, match=r"unknown key 'quux'; known keys: maker, lens\.\*, pixels, .* newer iir_sdk\?"
    ):
        Camera.from_dict({"maker": "Pentax", "quux": 1})
    with pytest.raises(ConfigError, match="camera: 3 must be an object"):
        Camera.from_dict(3)


def test_records_within_are_read_and_their_errors_say_where():
    plain = {"cameras": [{"maker": "A", "lens": {"length": 35}}, {"maker": "B"}], "best": None}
    shelf = Shelf.from_dict(plain)
    assert shelf.cameras == (Camera("A", Lens(35)), Camera("B"))
    assert Shelf.from_dict(shelf.to_dict()) == shelf
    with pytest.raises(WeightsError, match=r"^hall: camera: lens.length=-1 must be a number above 0\.$"):
        Shelf.from_dict({"cameras": [{"maker": "A", "lens": {"length": -1}}]}, "hall")


def test_names_that_are_alike():
    assert dotted_keys(Camera)[:3] == ["maker", "lens.length", "lens.kind"]
    assert did_you_mean("lenth", dotted_keys(Camera)) == "; did you mean 'lens.length'?"
    assert did_you_mean("lense", dotted_keys(Camera)) == "; known names of 'lens': lens.length, lens.kind."
    assert did_you_mean("lens.quux", dotted_keys(Camera)) == "; known names of 'lens': lens.length, lens.kind."
    assert did_you_mean("xyz", ["one", "two"]) == "; known names: one, two."
    assert did_you_mean("xyz", []) == "; known names: none."
