"""What a segmenter is taught: supports show what a label is, counterexamples what it is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iir_sdk.engines.base import TaskGroup
from iir_sdk.engines.box import mask_in_box
from iir_sdk.engines.engine_weights import EngineWeights
from iir_sdk.engines.rehearse import rehearsed
from iir_sdk.errors import LabelError, MaskError, NoSupportError
from iir_sdk.pictures.box import Box, load_box, plain_box
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import UNKNOWN, Value, load_mask, load_region
from iir_sdk.pictures.orientation import Exif
from iir_sdk.pictures.source import ImageSource
from iir_sdk.process import ProcessLock
from iir_sdk.results.rehearsal import Rehearsal
from iir_sdk.supports.bank import Counterexample, Example, Support, SupportBank, SupportFile, named, read_supports
from iir_sdk.supports.cache import ReadySupports, as_task
from iir_sdk.supports.encoded import EncodedSupport, check_tokens
from iir_sdk.supports.object_size import warn_of_no_background, warn_of_small_object
from iir_sdk.supports.pictures import PackedMask, copied_pixels, small_copy


class Taught(EngineWeights):
    """A segmenter's supports and counterexamples: added, removed, saved, loaded and rehearsed.

    Attributes:
        engine: encodes them.
        token_budget: most tokens that a label's are merged to.
    """

    token_budget: int
    _ready: ReadySupports[list[TaskGroup]]

    def _hold(self, bank: SupportBank) -> None:
        self._ready = ReadySupports(self.engine.prepare, self.token_budget, bank)
        self._changing = ProcessLock()

    @property
    def supports(self) -> SupportBank:
        """All supports, and what is not their object: an immutable collection."""
        return self._ready.bank

    def add_support(
        self,
        image: ImageSource,
        mask: ImageSource | None = None,
        label: str = "object",
        *,
        box: Box | None = None,
        known: ImageSource | None = None,
        value: Value | None = None,
        exif: Exif = "auto",
        page: int | None = None,
        keep_picture: bool = True,
        whole: bool = False,
    ) -> Support:
        """Encode one example of a label and keep it; further ones of the same label are further shots.

        Args:
            image: a path, a file's bytes, an open binary file, a PIL image, a uint8 array ``(H, W, 3)`` or a float
                tensor ``(3, H, W)`` in [0, 1]; RGB.
            mask: the same kinds, one channel, the image's size. One number beside 0 is the object, 255 beside another
                is unknown and counts nowhere, of soft edges half and above is the object.
            label: its name.
            box: in place of a mask ``(x0, y0, x1, y1)`` around the object, in pixels, half-open; the network makes the
                mask, and the support shows it as ``mask``.
            known: where the mask says anything, a mask of its own: clicks, strokes, a part of the picture. The rest is
                unknown.
            value: which number of a mask of several classes is the object, as ``3`` or ``(3, 5)``.
            exif: whether the mask was drawn on the picture as ``shown``, or as ``stored`` by a tool that ignores EXIF;
                ``auto`` goes by its size, and where that fits both is ``shown``, with a warning.
            page: which one of files of several pages or frames, from 0; None is the first, with a warning.
            keep_picture: keep a small copy of the picture, at the network's size and also in files of supports, for
                :meth:`rehearse`.
            whole: look at the whole picture and not at the object's surroundings alone: beside a support that does not,
                for queries of the same scene, as a video's frames are.

        Warns:
            IirWarning: the object is too small or too thin for good masks, no background is known, or hardly anything
                was found in the box; the message names the cure.

        Raises:
            ImageError, MaskError, PictureNotFoundError: the picture or mask cannot be used.
            LabelError: the label is not a non-empty string.
        """
        _check_label(label)
        picture = load_picture(image, page=page)
        if box is not None:
            _check_alone(box=box, mask=mask, known=known, value=value)
            box = plain_box(box)
            inside = mask_in_box(self.engine, picture.pixels, load_box(box, picture, exif=exif))
            labels = inside.astype(np.uint8)
        elif mask is None:
            raise MaskError("add_support needs a mask, or a box around the object: box=(x0, y0, x1, y1).")
        else:
            labels = load_mask(mask, picture, value=value, known=known, exif=exif, page=page)
        mask_of_object, stated = labels == 1, labels != UNKNOWN
        warn_of_small_object(mask_of_object, stated, self.preprocessing)
        if not self.supports.counterexamples_of(label):
            warn_of_no_background(labels == 0, label)
        state = self.engine.encode(picture.pixels, mask_of_object, stated, whole=whole)
        copy = small_copy(picture.pixels, self.preprocessing) if keep_picture else b""
        support = Support(label, state, PackedMask.of(mask_of_object, stated), copy, box)
        self._add(support)
        return support

    def add_counterexample(
        self,
        image: ImageSource,
        region: ImageSource | None = None,
        label: str = "object",
        *,
        value: Value | None = None,
        exif: Exif = "auto",
        page: int | None = None,
        keep_picture: bool = True,
    ) -> Counterexample:
        """Encode a picture that does not show a label's object, though its masks may say so, and keep it.

        All counterexamples of a label together count as much as one picture's background does, and need a support
        beside them, which may be added later.

        Args:
            image: see :meth:`add_support`, likewise ``exif`` and ``page``.
            region: the part of it that is not the object, marked as an object is in a mask; None for all of it.
            label: what it is not.
            value: which number of a region of several classes is meant.
            keep_picture: see :meth:`add_support`; of a region nothing is kept, since beside it the object may be seen.

        Raises:
            ImageError, MaskError, PictureNotFoundError: the picture or region cannot be used.
            LabelError: the label is not a non-empty string.
        """
        _check_label(label)
        picture = load_picture(image, page=page)
        not_object = np.ones(picture.size, np.bool_)
        if region is not None:
            not_object = load_region(region, picture, value=value, exif=exif, page=page)
        tokens = self.engine.encode_counterexample(picture.pixels, not_object)
        if not tokens.count:
            raise MaskError("region is too small: nothing is left of it at the network's size. Mark more of it.")
        copy = small_copy(picture.pixels, self.preprocessing) if keep_picture and not_object.all() else b""
        counterexample = Counterexample(label, tokens, picture.size, copy)
        self._add(counterexample)
        return counterexample

    def task(self, states: Sequence[EncodedSupport]) -> EncodedSupport:
        """What a label is compared by: all its supports together, within the token budget."""
        return as_task(states, self.token_budget)

    def _add(self, *examples: Example) -> None:
        with self._changing:
            self._ready = self._ready.holding(self._ready.bank.adding(*examples))

    def remove_support(self, which: Support | Counterexample | str) -> None:
        """Forget one support or counterexample, or all of a label.

        Raises:
            LabelError: nothing fits.
        """
        with self._changing:
            self._ready = self._ready.holding(self._ready.bank.removing(which))

    def clear_supports(self) -> None:
        """Forget all supports and counterexamples."""
        with self._changing:
            self._ready = self._ready.holding(SupportBank())

    def save_supports(self, target: SupportFile) -> None:
        """Write supports and counterexamples as safetensors, bound to this checkpoint, to a path or an open file.

        Raises:
            OutputError: it cannot be written.
            NoSupportError: there is none.
        """
        bank = self.supports
        if not (bank.supports or bank.counterexamples):
            raise NoSupportError("there are no supports to save; call add_support(image, mask) first.")
        bank.save(target, checkpoint=self.engine.identity.name, sha256=self.engine.identity.sha256)

    def load_supports(self, source: SupportFile) -> tuple[Support, ...]:
        """Add what :meth:`save_supports` wrote with this checkpoint; what is already here is not added twice.

        Args:
            source: a path, an open binary file, or the file's bytes.

        Returns:
            The file's supports; its counterexamples are among those of :attr:`supports`.

        Raises:
            SupportError: not such a file, damaged, or made with another checkpoint.
        """
        loaded = read_supports(source, checkpoint=self.engine.identity.name, sha256=self.engine.identity.sha256)
        expected = self.engine.like_supports
        examples: tuple[Example, ...] = (*loaded.supports, *loaded.counterexamples)
        for example in examples:
            what = f"{named(source)}, {type(example).__name__.lower()} {example.id}"
            if isinstance(example, Support):
                example.state.check_like(expected, what)
            else:
                check_tokens(example.tokens, expected.tokens, what)
            if example.picture:
                copied_pixels(example.picture, self.preprocessing, what)
        self._add(*examples)
        return loaded.supports

    def rehearse(self, label: str = "object") -> Rehearsal:
        """Segment each shot of a label by its other shots: what to expect, and by which settings; prints as a report.

        From the small copies of the pictures that supports keep; it takes one to two predictions' time a shot.

        Args:
            label: which; it needs two supports.

        Raises:
            LabelError: no support has it.
            NoSupportError: it has one support alone.
            SupportError: a support was added with ``keep_picture=False``.
            PrecisionError: numbers overflowed in the chosen dtype.
        """
        return rehearsed(self.engine, self.supports, label, self.token_budget)


def _check_alone(**given: object) -> None:
    """Refuse what says the same as a box, or nothing without a mask."""
    if beside := [name for name in ("mask", "known", "value") if given[name] is not None]:
        raise MaskError(f"box={given['box']!r:.100} and {' and '.join(beside)} were given; pass a mask or a box.")


def _check_label(label: object) -> None:
    if not isinstance(label, str) or not label:
        raise LabelError(f"label={label!r} must be a non-empty string.")
