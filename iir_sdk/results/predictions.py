"""The results of many pictures, as they come."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

from PIL import Image

from iir_sdk.errors import ConfigError, IirError, ImageError
from iir_sdk.pictures.load import Picture, load_picture
from iir_sdk.pictures.source import ImageSource
from iir_sdk.results.segmentation import Segmentation

OnError = Literal["raise", "skip"]


class Skipped(NamedTuple):
    """A picture that was left out.

    Attributes:
        position: among the queries, from 0.
        source: the picture as it was given.
        error: what is wrong with it.
    """

    position: int
    source: ImageSource
    error: IirError


class Predictions(Iterator[Segmentation]):
    """Results of many pictures, in order; a batch of pictures is read when its first result is asked for.

    Args:
        queries: the pictures.
        segment: results of a batch; an error in the place of one that failed alone.
        batch_size: pictures a batch.
        on_error: of a picture that cannot be used: ``raise`` its error after the results of those before it, from
            where the iteration may go on; or ``skip`` it.
        page: which one of files of several pages; None is the first, with a warning.

    Attributes:
        skipped: the pictures left out so far.
    """

    def __init__(
        self,
        queries: Iterable[ImageSource],
        segment: Callable[[list[Picture]], list[Segmentation | IirError]],
        *,
        batch_size: int,
        on_error: OnError,
        page: int | None = None,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error={on_error!r} must be 'raise' or 'skip'.")
        self.skipped: list[Skipped] = []
        self._queries, self._segment = iter(queries), segment
        self._batch_size, self._skips = batch_size, on_error == "skip"
        self._page, self._position = page, 0
        self._outcomes: deque[Segmentation | Exception] = deque()

    def __next__(self) -> Segmentation:
        while not self._outcomes:
            self._take_batch()
        outcome = self._outcomes.popleft()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _take_batch(self) -> None:
        """Read and segment up to a batch of pictures; an error ends it early, and comes after their results."""
        batch: list[tuple[int, ImageSource, Picture]] = []
        failure: Exception | None = None
        while len(batch) < self._batch_size and failure is None:
            try:
                source = next(self._queries)
            except Exception as error:  # StopIteration, or whatever the caller's iterator raises
                failure = error
                break
            position, self._position = self._position, self._position + 1
            try:
                batch.append((position, source, load_picture(source, what=f"query {position}", page=self._page)))
            except IirError as error:
                failure = self._raised_or_skipped(position, source, error)
        outcomes = self._segment([picture for _, _, picture in batch]) if batch else []
        for (position, source, _), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Segmentation):
                self._outcomes.append(outcome)
            elif raised := self._raised_or_skipped(position, source, type(outcome)(f"query {position}: {outcome}")):
                self._outcomes.append(raised)
        if failure is not None:
            self._outcomes.append(failure)

    def _raised_or_skipped(self, position: int, source: ImageSource, error: IirError) -> IirError | None:
        if not self._skips:
            return error
        self.skipped.append(Skipped(position, source, error))
        return None


def check_collection(queries: Any) -> None:
    """Refuse one picture where several are expected, by an ImageError that names what it is."""
    shape = getattr(queries, "shape", None)
    # Arrays are collections of pictures (B, H, W, 3), or of paths (B,).
    if isinstance(shape, tuple) and len(shape) in (0, 2, 3):
        raise ImageError(
            f"queries is one {type(queries).__name__} of shape {tuple(shape)} and not a collection of pictures; "
            "for one picture call predict(picture), for several pass a list of them."
        )
    single = (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, io.IOBase)
    if isinstance(queries, single) or hasattr(queries, "read") or not isinstance(queries, Iterable):
        raise ImageError(f"queries={queries!r:.200} is not a collection of pictures; for one picture call predict.")
