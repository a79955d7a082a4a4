"""Named sets of supports that share one network, kept within a bound; whoever serves them brings the transport."""

from __future__ import annotations

import copy
import io
import re
import secrets
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Protocol

from iir_sdk.errors import (
    ImageError,
    LabelError,
    MaskError,
    RequestError,
    RequestTooLargeError,
    SupportSetError,
    SupportSetNotFoundError,
)
from iir_sdk.pictures.box import Box
from iir_sdk.pictures.masks import Value
from iir_sdk.pictures.orientation import Exif
from iir_sdk.process import ProcessLock
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.supports.bank import SupportFile

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

BYTES_IN_USE = 4
"""Bytes of a set that predicts over those of its supports: they are joined, and prepared in float32."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A picture that shows what a label is, or is not; files' bytes.

    Attributes:
        image: the picture.
        mask: of the object; or a box.
        label: of what it is an example.
        known: where the mask says anything; None for all of it.
        box: around the object, in place of a mask.
        counterexample: whether it shows that the label is not there.
        region: of a counterexample, where it is not; None for the whole picture.
        value: which number of a mask of several classes is the object.
        exif: whether masks and boxes were drawn on the picture as shown, or as stored.
        page: which one of files of several pages.
    """

    image: bytes
    mask: bytes | None = None
    label: str = "object"
    known: bytes | None = None
    box: Box | None = None
    counterexample: bool = False
    region: bytes | None = None
    value: Value | None = None
    exif: Exif = "auto"
    page: int | None = None

    def teach(self, segmenter: FewShotSegmenter) -> None:
        """Add it to a segmenter's supports or counterexamples; raises as those of a segmenter do."""
        if not self.counterexample:
            if self.region is not None:
                raise MaskError("a region is of a counterexample; of a support send mask, and known beside it.")
            segmenter.add_support(
                self.image,
                self.mask,
                self.label,
                box=self.box,
                known=self.known,
                value=self.value,
                exif=self.exif,
                page=self.page,
                keep_picture=False,
            )
            return
        if any(each is not None for each in (self.mask, self.known, self.box)):
            raise MaskError("a counterexample has no mask, known or box; where the label is not is its region.")
        segmenter.add_counterexample(
            self.image,
            self.region,
            self.label,
            value=self.value,
            exif=self.exif,
            page=self.page,
            keep_picture=False,
        )


@dataclass(frozen=True)
class SupportSet:
    """Supports under a name.

    Attributes:
        name: of the set.
        segmenter: predicts by them; whoever adds to the set makes another, so that predictions under way go on as they
            began.
        preloaded: whether it stays until the server stops.
    """

    name: str
    segmenter: FewShotSegmenter = field(repr=False)
    preloaded: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of memory it holds once it predicts, at most."""
        bank = self.segmenter.supports
        return BYTES_IN_USE * (sum(s.nbytes for s in bank) + sum(c.nbytes for c in bank.counterexamples))

    @property
    def supports(self) -> Mapping[str, int]:
        """How many supports a label has."""
        return Counter(s.label for s in self.segmenter.supports)

    @property
    def counterexamples(self) -> Mapping[str, int]:
        """How many counterexamples a label has; it may have no support yet."""
        return Counter(c.label for c in self.segmenter.supports.counterexamples)

    def file(self) -> bytes:
        """As ``save_supports`` writes it; a NoSupportError where there is nothing in it."""
        content = io.BytesIO()
        self.segmenter.save_supports(content)
        return content.getvalue()


class Outline(Protocol):
    """What is told of a set."""

    @property
    def name(self) -> str:
        """Of the set."""

    @property
    def preloaded(self) -> bool:
        """Whether it stays until the server stops."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory it holds once it predicts, at most."""

    @property
    def supports(self) -> Mapping[str, int]:
        """How many supports a label has."""

    @property
    def counterexamples(self) -> Mapping[str, int]:
        """How many counterexamples a label has."""


class Sets(Protocol):
    """Sets of supports by name, wherever they are kept; raises as :class:`SupportSets` does."""

    @property
    def segmenter(self) -> FewShotSegmenter:
        """A segmenter of the shared network, without supports."""

    def __len__(self) -> int: ...

    def listed(self) -> Sequence[Outline]:
        """What there is."""

    def outline(self, name: str) -> Outline:
        """What a set holds."""

    def get(self, name: str) -> SupportSet:
        """A set, to predict by."""

    def file(self, name: str) -> bytes:
        """A set, as ``save_supports`` writes it."""

    def taught(self, examples: Sequence[Example]) -> FewShotSegmenter:
        """A segmenter with these supports alone."""

    def create(self, examples: Sequence[Example], name: str | None = None) -> SupportSet:
        """A new set."""

    def add(self, name: str, examples: Sequence[Example]) -> SupportSet:
        """More for a set."""

    def forget(self, name: str) -> None:
        """Let go of a set."""


class SupportSets:
    """Sets of supports by name. Of those not preloaded, the ones unused for longest are forgotten beyond a bound.

    Threads may teach, take and forget at once.

    Args:
        segmenter: whose network they share; its own supports are in none of them.
        max_bytes: that sets hold together, beside the preloaded ones.
    """

    def __init__(self, segmenter: FewShotSegmenter, *, max_bytes: int = 1 << 30) -> None:
        self._blank = copy.copy(segmenter)
        self._blank.clear_supports()
        self.max_bytes = max_bytes
        self._preloaded: dict[str, SupportSet] = {}
        self._sets: OrderedDict[str, SupportSet] = OrderedDict()
        self._growing: dict[str, Lock] = {}
        self._changing = ProcessLock()

    @property
    def segmenter(self) -> FewShotSegmenter:
        """A segmenter of the shared network, without supports."""
        return copy.copy(self._blank)

    def preload(self, source: SupportFile, name: str | None = None) -> SupportSet:
        """Hold what ``save_supports`` wrote until the server stops.

        Args:
            source: see :meth:`FewShotSegmenter.load_supports`.
            name: of the set; None for the file's, without its suffix.

        Raises:
            SupportError: not such a file, or made with another checkpoint.
            SupportSetError: the name is taken.
            RequestError: it is no name.
        """
        if name is None:
            name = Path(source).stem if isinstance(source, (str, Path)) else ""
        check_name(name)
        segmenter = self.segmenter
        segmenter.load_supports(source)
        with self._changing:
            self._check_free(name)
            preloaded = self._preloaded[name] = SupportSet(name, segmenter, preloaded=True)
        return preloaded

    def joined(self) -> FewShotSegmenter:
        """A segmenter with what all preloaded sets hold."""
        segmenter = self.segmenter
        for each in self._preloaded.values():
            segmenter.load_supports(each.file())
        return segmenter

    def taught(self, examples: Sequence[Example]) -> FewShotSegmenter:
        """A segmenter with these supports alone, kept by nobody else; raises as :meth:`Example.teach` does."""
        return taught(self.segmenter, examples)

    def create(self, examples: Sequence[Example], name: str | None = None) -> SupportSet:
        """A new set of these examples; None for a random name. All of them are in it, or there is none.

        Raises:
            SupportSetError: the name is taken.
            RequestError: it is no name.
            RequestTooLargeError: the set alone is beyond the bound.
            ImageError, MaskError, LabelError: an example cannot be used; the message says which.
        """
        if name is not None:
            check_name(name)
            with self._changing:
                self._check_free(name)
        new = SupportSet(name or secrets.token_hex(8), self.taught(examples))
        with self._changing:
            self._check_free(new.name)
            self._hold(new)
        return new

    def add(self, name: str, examples: Sequence[Example]) -> SupportSet:
        """Further examples for a set: all of them, or none.

        Raises:
            SupportSetNotFoundError: there is no such set.
            SupportSetError: it is preloaded; further as :meth:`create`.
        """
        with self._changing:
            if name not in self._sets and name not in self._preloaded:
                raise unknown_set(name)
            lock = self._growing.setdefault(name, Lock())
        # One after another for each set, so that none of two additions is lost.
        with lock:
            before = self.get(name)
            if before.preloaded:
                raise SupportSetError(f"set {name!r} is preloaded and stays as it is: create one of another name.")
            grown = SupportSet(name, taught(copy.copy(before.segmenter), examples))
            with self._changing:
                if name not in self._sets:
                    raise unknown_set(name)
                self._hold(grown)
        return grown

    def get(self, name: str) -> SupportSet:
        """A set, which is now the last used; a SupportSetNotFoundError where there is none."""
        with self._changing:
            if name in self._preloaded:
                return self._preloaded[name]
            if name not in self._sets:
                raise unknown_set(name)
            self._sets.move_to_end(name)
            return self._sets[name]

    def outline(self, name: str) -> SupportSet:
        """What a set holds; as :meth:`get`."""
        return self.get(name)

    def file(self, name: str) -> bytes:
        """A set, as ``save_supports`` writes it; as :meth:`get`."""
        return self.get(name).file()

    def forget(self, name: str) -> None:
        """Let go of a set; a SupportSetNotFoundError where there is none, a SupportSetError where it is preloaded."""
        with self._changing:
            if name in self._preloaded:
                raise SupportSetError(f"set {name!r} is preloaded: start the server without its file to be rid of it.")
            if self._sets.pop(name, None) is None:
                raise unknown_set(name)
            self._growing.pop(name, None)

    def listed(self) -> tuple[SupportSet, ...]:
        """All sets: those that are preloaded, then from the one unused for longest on."""
        with self._changing:
            return (*self._preloaded.values(), *self._sets.values())

    def __len__(self) -> int:
        return len(self._preloaded) + len(self._sets)

    def _hold(self, new: SupportSet) -> None:
        """Put a set into the last place, and forget the first ones beyond the bound."""
        if new.nbytes > self.max_bytes:
            raise too_large_set(new.name, new.nbytes, self.max_bytes)
        self._sets[new.name] = new
        self._sets.move_to_end(new.name)
        total = sum(each.nbytes for each in self._sets.values())
        while total > self.max_bytes:
            name, oldest = self._sets.popitem(last=False)
            self._growing.pop(name, None)
            total -= oldest.nbytes

    def _check_free(self, name: str) -> None:
        if name in self._preloaded or name in self._sets:
            raise taken_name(name)


def taught(segmenter: FewShotSegmenter, examples: Sequence[Example]) -> FewShotSegmenter:
    """The segmenter, with these supports as well; an error says which of several cannot be used."""
    for place, example in enumerate(examples):
        try:
            example.teach(segmenter)
        except (ImageError, MaskError, LabelError) as error:
            if len(examples) == 1:
                raise
            raise type(error)(f"supports[{place}]: {error}") from error
    return segmenter


def check_name(name: str) -> None:
    """Refuse what is no name, by a RequestError."""
    if not NAME.fullmatch(name):
        raise RequestError(
            f"name={name!r:.100} must be 1 to 64 letters of A-Z, a-z, digits and . _ -, the first a letter or digit."
        )


def unknown_set(name: str) -> SupportSetNotFoundError:
    """To raise where there is no such set."""
    return SupportSetNotFoundError(
        f"there is no set {name!r:.100}: it was deleted, or unused for so long that others took its place, or never "
        "there. Send its supports again."
    )


def taken_name(name: str) -> SupportSetError:
    """To raise where a new set would have the name of another."""
    return SupportSetError(f"there is a set {name!r} already: add to it, forget it first, or choose another name.")


def too_large_set(name: str, nbytes: int, most: int) -> RequestTooLargeError:
    """To raise where a set alone is beyond the bound."""
    return RequestTooLargeError(
        f"set {name!r} would hold {nbytes:,} bytes, and all together may hold {most:,}: send fewer supports."
    )
