"""What requests ask for, done by the thread that calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import iir_sdk
from iir_sdk.errors import RequestError, RequestTooLargeError
from iir_sdk.process import collecting_warnings
from iir_sdk.results.segmentation import Segmentation
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.web.api.answers import Answer, label_map_png, labels_header, predict_out, set_out
from iir_sdk.web.api.limits import Limits, check_pixels
from iir_sdk.web.api.messages import (
    CreateSet,
    ExampleIn,
    ExtendSet,
    HealthOut,
    LimitsOut,
    PredictRequest,
    SetOut,
    SetsOut,
)
from iir_sdk.web.api.support_sets import Example, Sets, SupportSet


class Work:
    """What the paths under ``/v1`` do, by messages whose fields are as they should be.

    Args:
        sets: the sets of supports, and the network.
        limits: of requests.
    """

    def __init__(self, sets: Sets, limits: Limits) -> None:
        self.sets, self.limits = sets, limits

    def health(self) -> HealthOut:
        """What runs."""
        identity, limits = self.sets.segmenter.engine.identity, self.limits
        return HealthOut(
            version=iir_sdk.__version__,
            weights=identity.name,
            sha256=identity.sha256,
            backend=identity.backend,
            device=identity.place,
            precision=identity.precision,
            calibrated=identity.calibrated,
            sets=len(self.sets),
            limits=LimitsOut(**{name: getattr(limits, name) for name in LimitsOut.model_fields}),
        )

    def create(self, asked: CreateSet) -> SetOut:
        """A new set; raises as :meth:`SupportSets.create` does."""
        return _collecting(lambda: self.sets.create(self._checked(asked.supports), asked.name))

    def extend(self, name: str, asked: ExtendSet) -> SetOut:
        """More for a set; raises as :meth:`SupportSets.add` does."""
        return _collecting(lambda: self.sets.add(name, self._checked(asked.supports)))

    def listed(self) -> SetsOut:
        """All sets."""
        return SetsOut(sets=[set_out(each) for each in self.sets.listed()])

    def one(self, name: str) -> SetOut:
        """What a set holds; a SupportSetNotFoundError where there is none, as of the following."""
        return set_out(self.sets.outline(name))

    def file(self, name: str) -> bytes:
        """A set, as ``save_supports`` writes it."""
        return self.sets.file(name)

    def forget(self, name: str) -> None:
        """Let go of a set."""
        self.sets.forget(name)

    def predict(self, asked: PredictRequest, as_png: bool) -> Answer:
        """A picture's masks; raises as :meth:`FewShotSegmenter.predict` does."""
        with collecting_warnings() as warnings:
            segmenter = self.segmenter_of(asked)
            options = {
                name: getattr(asked, name) for name in ("labels", "threshold", "absent_below", "tile", "overlap")
            }
            result = segmenter.predict(asked.image, **options, sharpen=asked.sharpen, page=asked.page)
        return answer_of(result, asked, as_png, warnings)

    def segmenter_of(self, asked: PredictRequest) -> FewShotSegmenter:
        """What a prediction is to be made by: a set, or the supports that came along.

        Raises:
            RequestError: neither or both are named; a RequestTooLargeError of a picture beyond the limits.
        """
        if (asked.set is None) == (asked.supports is None):
            raise RequestError("a prediction needs either set, the id of a set of supports, or supports of its own.")
        check_pixels(asked.image, "image", self.limits.pixels)
        if asked.set is not None:
            return self.sets.get(asked.set).segmenter
        return self.sets.taught(self._checked(asked.supports or ()))

    def _checked(self, supports: Iterable[ExampleIn]) -> list[Example]:
        """Examples within the bounds."""
        examples = [each.example() for each in supports]
        if len(examples) > self.limits.examples:
            raise RequestTooLargeError(
                f"{len(examples)} supports were sent, and a request holds at most {self.limits.examples}: send the "
                "others by further requests to POST /v1/supports/{id}."
            )
        for example in examples:
            for what in ("image", "mask", "known", "region"):
                check_pixels(getattr(example, what), what, self.limits.pixels)
        return examples


def answer_of(result: Segmentation, asked: PredictRequest, as_png: bool, warnings: Sequence[str]) -> Answer:
    """A prediction as it is sent: JSON, or a label map."""
    if as_png:
        return Answer(label_map_png(result), "image/png", labels_header(result))
    return Answer(predict_out(result, asked.masks, warnings).model_dump_json().encode(), "application/json")


def _collecting(change: Callable[[], SupportSet]) -> SetOut:
    with collecting_warnings() as warnings:
        changed = change()
    return set_out(changed, warnings)
