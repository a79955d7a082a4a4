"""What requests ask and answers say, as the OpenAPI document shows it; forms and JSON have the same fields."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from iir_sdk.web.api.support_sets import Example

_PIXEL = "iVBORw0KGgoAAAANSUhEUgAA..."


def file_bytes(value: object) -> object:
    """A file's bytes, of base64 text, with or without the head of a data URL; bytes stay as they are."""
    if not isinstance(value, str):
        return value
    text = value.partition(",")[2] if value.startswith("data:") else value
    try:
        # Lines are broken by many tools.
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{value[:40]!r} is not base64 ({error}); send base64.b64encode(file's bytes)") from error


def _listed(value: object) -> object:
    """A list, of text such as ``10, 20, 110, 90``."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _number_or_numbers(value: object) -> object:
    return _listed(value) if isinstance(value, str) and "," in value else value


FileBytes: TypeAlias = Annotated[
    bytes,
    BeforeValidator(file_bytes),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "examples": [_PIXEL]}),
]
LabelName: TypeAlias = Annotated[str, Field(min_length=1, max_length=200, examples=["coin"])]
BoxEdges: TypeAlias = Annotated[tuple[float, float, float, float], BeforeValidator(_listed)]


class Message(BaseModel):
    """Base of all: unknown fields are refused, so that a typing error is no silent default."""

    model_config = ConfigDict(extra="forbid")


class ExampleIn(Message):
    """A picture that shows what a label is, by a mask or a box, or is not."""

    image: FileBytes = Field(description="The picture's file: JPEG, PNG, WebP, TIFF and whatever else Pillow reads.")
    mask: FileBytes | None = Field(
        None, description="A mask of the picture's size: one number beside 0 is the object, 255 beside it is unknown."
    )
    label: LabelName = Field("object", description="What it is an example of.")
    box: BoxEdges | None = Field(
        None,
        description="In place of a mask: x0, y0, x1, y1 around the object, in pixels. In a form: 10,20,110,90.",
        examples=[[10, 20, 110, 90]],
    )
    known: FileBytes | None = Field(
        None, description="Where the mask says anything, a mask of its own; the rest is unknown."
    )
    counterexample: bool = Field(False, description="The picture does not show the label, though masks may say so.")
    region: FileBytes | None = Field(
        None, description="Of a counterexample: the part that is not the object. Without it, all of the picture."
    )
    value: Annotated[int | list[int] | None, BeforeValidator(_number_or_numbers)] = Field(
        None, description="Which number, or numbers, of a mask of several classes is the object."
    )
    exif: Literal["auto", "shown", "stored"] = Field(
        "auto",
        description="Whether masks and boxes were drawn on the picture as shown, or as stored by tools that "
        "ignore EXIF; auto: by their size.",
    )
    page: int | None = Field(None, ge=0, description="Which one of files of several pages, from 0.")

    def example(self) -> Example:
        """As sets of supports take it."""
        value = tuple(self.value) if isinstance(self.value, list) else self.value
        return Example(**{**dict(self), "value": value})


SetName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["coins"])]


class CreateSet(Message):
    """A new set of supports."""

    name: SetName | None = Field(None, description="Name of the set; without one, the server makes one.")
    supports: list[ExampleIn] = Field(min_length=1, description="Its supports and counterexamples.")


class ExtendSet(Message):
    """Further supports for a set."""

    supports: list[ExampleIn] = Field(min_length=1, description="Further supports and counterexamples.")


class ExampleForm(ExampleIn):
    """One support or counterexample, as a form."""


class CreateSetForm(ExampleForm):
    """A new set of one support, as a form."""

    name: SetName | None = Field(None, description="Name of the set; without one, the server makes one.")


class PredictOptions(Message):
    """How a picture is segmented."""

    labels: Annotated[list[LabelName] | None, BeforeValidator(_listed)] = Field(
        None, description="These labels alone, in this order. In a form: coin,flag."
    )
    threshold: float = Field(0.5, ge=0, le=1, description="A pixel is in a mask where its probability exceeds this.")
    absent_below: float = Field(
        0.0, ge=0, le=1, description="Labels of a lower score get an empty mask; 0.5 where pictures may not show them."
    )
    tile: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None, description="Of a large picture with small objects: side in pixels of tiles that are looked at closely."
    )
    overlap: float = Field(
        0.25, ge=0, le=0.5, description="Share of a tile's side that it has in common with the next."
    )
    sharpen: bool = Field(False, description="Draw the masks' edges to those of the picture.")
    page: int | None = Field(None, ge=0, description="Which one of a file of several pages, from 0.")
    masks: Literal["rle", "png", "none"] = Field(
        "rle", description="How masks come back: COCO's run lengths, PNG as base64, or not at all."
    )


class PredictRequest(PredictOptions):
    """A picture to segment by a set of supports, or by supports sent along."""

    image: FileBytes = Field(description="The picture's file.")
    set: SetName | None = Field(None, description="Name of a set of supports.")
    supports: list[ExampleIn] | None = Field(
        None, min_length=1, description="In place of a set: supports for this picture alone."
    )


class PredictForm(PredictOptions):
    """As a form: a set's name, or one support sent along."""

    image: FileBytes = Field(description="The picture's file.")
    set: SetName | None = Field(None, description="Name of a set of supports.")
    support_image: FileBytes | None = Field(None, description="In place of a set: a support's picture.")
    support_mask: FileBytes | None = Field(None, description="Its mask.")
    support_box: BoxEdges | None = Field(None, description="In place of its mask: x0,y0,x1,y1.")
    support_label: LabelName = Field("object", description="Its label.")

    @model_validator(mode="after")
    def _of_a_picture(self) -> PredictForm:
        beside = sorted(name for name in self.model_fields_set if name.startswith("support_"))
        if beside and self.support_image is None:
            raise ValueError(f"{beside[0]} needs support_image, the picture it belongs to")
        return self

    def request(self) -> dict[str, Any]:
        """The fields of a :class:`PredictRequest`."""
        fields = {name: getattr(self, name) for name in (*PredictOptions.model_fields, "image", "set")}
        if self.support_image is not None:
            support = {"image": self.support_image, "mask": self.support_mask, "label": self.support_label}
            fields["supports"] = [{**support, "box": self.support_box}]
        return fields


class LabelCounts(Message):
    """What a set holds of a label."""

    label: str = Field(examples=["coin"])
    supports: int = Field(ge=0, examples=[1])
    counterexamples: int = Field(ge=0, examples=[0])


class SetOut(Message):
    """A set of supports."""

    id: str = Field(description="Its name, for predictions.", examples=["coins"])
    labels: list[LabelCounts]
    bytes: int = Field(description="Memory that it holds, at most.", examples=[2058876])
    preloaded: bool = Field(description="Whether it stays until the server stops.")
    warnings: list[str] = Field([], description="What is doubtful about the examples just sent.")


class SetsOut(Message):
    """All sets of supports."""

    sets: list[SetOut]


class RunLengths(Message):
    """A mask as COCO's compressed run lengths, as pycocotools decodes them."""

    size: tuple[int, int] = Field(description="Height and width.", examples=[[303, 384]])
    counts: str = Field(examples=["PSY1?b93N1O1N3N1O1..."])


class LabelOut(Message):
    """What the picture shows of a label."""

    label: str = Field(examples=["coin"])
    score: float = Field(ge=0, le=1, description="How probable it is that the picture shows it.", examples=[0.98])
    confidence: float = Field(ge=0, le=1, description="What share of the mask is right, as a rule.", examples=[0.91])
    area: int = Field(ge=0, description="Pixels of the mask.", examples=[18230])
    box: tuple[int, int, int, int] | None = Field(
        description="x0, y0, x1, y1 around the mask, the latter two beyond it; null of an empty one.",
        examples=[[12, 30, 240, 200]],
    )
    rle: RunLengths | None = Field(default=None, description="The mask, with masks=rle.")
    png: str | None = Field(default=None, description="The mask as a PNG of 0 and 255 in base64, with masks=png.")


class PredictOut(Message):
    """Masks of a picture, at its own size."""

    width: int = Field(ge=1, examples=[384])
    height: int = Field(ge=1, examples=[303])
    labels: list[LabelOut] = Field(description="In the order asked for; masks of different labels may overlap.")
    milliseconds: dict[str, float] = Field(description="By stage.", examples=[{"encode": 61.0, "decode": 14.2}])
    warnings: list[str] = Field([], description="What is doubtful about the pictures sent.")


class LimitsOut(Message):
    """Bounds of a request."""

    body_bytes: int
    pixels: int
    examples: int
    seconds: float


class HealthOut(Message):
    """Whether the server is ready, and what it runs."""

    status: Literal["ready"] = "ready"
    version: str = Field(description="Of iir-sdk.", examples=["0.1.0"])
    weights: str = Field(examples=["iir-duo"])
    sha256: str = Field(description="Of the weights.", examples=["9c1e..."])
    backend: str = Field(examples=["torch"])
    device: str = Field(examples=["cpu"])
    precision: str = Field(examples=["float32"])
    calibrated: bool = Field(description="Whether scores say how probable it is that a picture shows a label.")
    sets: int = Field(description="Sets of supports that are held.", examples=[1])
    limits: LimitsOut


class ErrorOut(Message):
    """What went wrong, and what to do."""

    code: str = Field(description="The kind of error.", examples=["MaskError"])
    message: str = Field(examples=["mask is 100 x 100, but the image is 303 x 384."])
    cure: str = Field(
        examples=["Send a mask of the picture's own size as PNG: 0 is background, another number the object."]
    )
