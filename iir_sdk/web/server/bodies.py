"""What requests may hold: everything else is refused before any of it is used."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from iir_sdk.web.project.actions import LONGEST_NAME, MOST_POINTS

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Place = Annotated[float, Field(ge=-1, le=2, allow_inf_nan=False)]
_Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
_Id = Annotated[str, Field(max_length=64)]
_LONGEST_PNG = 48 << 20
_MOST_VISIBLE = 1000


class Body(BaseModel):
    """Of a request; fields that are not known are refused."""

    model_config = ConfigDict(extra="forbid")


class NewLabel(Body):
    """A label to make."""

    name: _Name
    color: str | None = None


class ChangedLabel(Body):
    """What is to change of a label."""

    name: _Name | None = None
    color: str | None = None


class NewStroke(Body):
    """What is said about a label in a picture; points and boxes are shares of width and height."""

    label: _Name
    kind: Literal["object", "background", "erase", "box", "mask", "not_here"]
    points: Annotated[list[tuple[_Place, _Place]], Field(max_length=MOST_POINTS)] = []
    radius: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] = 0.0
    box: tuple[_Place, _Place, _Place, _Place] | None = None
    png: Annotated[str, Field(max_length=_LONGEST_PNG)] = ""


class Decision(Body):
    """Which mask was looked at."""

    version: int | None = None


class ChangedSettings(Body):
    """Settings to change."""

    threshold: _Share | None = None
    absent_below: _Share | None = None


class OnScreen(Body):
    """Pictures that are on screen."""

    ids: Annotated[list[_Id], Field(max_length=_MOST_VISIBLE)]
