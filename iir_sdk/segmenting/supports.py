"""What a folder is segmented by: supports of files, sets and annotations, and their fingerprint."""

from __future__ import annotations

import copy
import hashlib
import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from iir_sdk.data.folder import read_picture_set
from iir_sdk.errors import DatasetError, IirError, IirWarning, LabelError, MaskError, NoSupportError
from iir_sdk.files import is_file
from iir_sdk.formats.annotated import AnnotatedMask
from iir_sdk.formats.annotations import read_annotations
from iir_sdk.pictures.masks import Value
from iir_sdk.pictures.orientation import frame_of
from iir_sdk.pictures.source import size_text
from iir_sdk.records import did_you_mean
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.segmenting.queries import absolute
from iir_sdk.supports.bank import Example, Support

PathText: TypeAlias = "str | os.PathLike[str]"

DEFAULT_LABEL = "object"


@dataclass(frozen=True)
class Shown:
    """A picture with a mask: what a label is.

    Attributes:
        image: the picture's file.
        mask: its mask's file.
        label: the object's name.
        value: which number of a mask of several classes it is.
    """

    image: PathText
    mask: PathText
    label: str = DEFAULT_LABEL
    value: Value | None = None

    @classmethod
    def from_text(cls, image: PathText, mask: str) -> Shown:
        """Of ``mask.png``, ``mask.png:label`` or ``mask.png:label=value``; a colon may be part of a file's name."""
        path, label, value = split_label(mask)
        return cls(image, path, label or DEFAULT_LABEL, value)


@dataclass(frozen=True)
class Teaching:
    """All that a segmenter is taught before it starts.

    Attributes:
        shown: pictures with masks.
        support_set: folder of ``images/`` and ``masks/<class>/``.
        annotations: what COCO, LabelMe or YOLO tools wrote.
        images: folder of their pictures; None for where they say, and beside them.
        support_file: what ``save_supports`` wrote.
        counterexamples: pictures that do not show a label's object, with the label, or None for the only one.
        labels: those of sets, annotations and files that are wanted; None for all.
    """

    shown: Sequence[Shown] = ()
    support_set: PathText | None = None
    annotations: PathText | None = None
    images: PathText | None = None
    support_file: PathText | None = None
    counterexamples: Sequence[tuple[PathText, str | None]] = ()
    labels: Sequence[str] | None = None

    def mask_files(self) -> set[str]:
        """Absolute paths of the masks: none of them is a query."""
        masks = {absolute(shown.mask) for shown in self.shown}
        if self.support_set is not None:
            masks |= {absolute(mask) for mask in (Path(self.support_set) / "masks").glob("*/*.png")}
        return masks

    def teach(self, segmenter: FewShotSegmenter) -> FewShotSegmenter:
        """A segmenter of the same network with these supports beside its own; the given one stays as it is.

        Raises:
            NoSupportError: there is none at all.
            LabelError: a label that no support has, or a counterexample of which label is not said.
            DatasetError, DatasetNotFoundError: the set or the annotations are not usable.
            ImageError, MaskError, PictureNotFoundError, SupportError: a support is not; the message names its files.
        """
        taught = copy.copy(segmenter)
        for shown in self.shown:
            with naming_files(shown.image, shown.mask):
                taught.add_support(shown.image, shown.mask, shown.label, value=shown.value)
        known: set[str] = set()
        if self.support_set is not None:
            known |= self._teach_set(taught, self.support_set)
        if self.annotations is not None:
            known |= self._teach_annotations(taught, self.annotations)
        if self.support_file is not None:
            taught.load_supports(self.support_file)
        known |= set(taught.supports.labels)
        if known:
            check_labels(self.labels or (), sorted(known))
        if not len(taught.supports):
            raise NoSupportError(
                "nothing shows what to look for: --support photo.jpg mask.png, --support-set, --annotations or "
                "--supports; in Python supports=[('photo.jpg', 'mask.png')], or a segmenter that was taught."
            )
        for image, label in self.counterexamples:
            name = _label_of(image, label, taught.supports.labels)
            with naming_files(image):
                taught.add_counterexample(image, label=name)
        return taught

    def _teach_set(self, segmenter: FewShotSegmenter, root: PathText) -> set[str]:
        """Labels that the set has, wanted or not."""
        pictures = read_picture_set(root)
        wanted = [c for c in pictures.classes if self.labels is None or c in self.labels]
        marked = {stem for stems in pictures.classes.values() for stem in stems}
        without = [str(file) for stem, file in pictures.images.items() if stem not in marked]
        if without:
            warnings.warn(
                f"{without[0]!r} has no mask in any folder of {str(Path(root) / 'masks')!r} (one of {len(without)}): "
                "it is not used. Draw its mask, or say --counterexample if it does not show the object.",
                IirWarning,
                stacklevel=2,
            )
        for label in wanted:
            for stem in pictures.classes[label]:
                image, mask = pictures.images[stem], Path(root) / "masks" / label / f"{stem}.png"
                with naming_files(image, mask):
                    segmenter.add_support(image, mask, label)
        return set(pictures.classes)

    def _teach_annotations(self, segmenter: FewShotSegmenter, file: PathText) -> set[str]:
        """Labels that the annotations have, wanted or not."""
        known = set()
        for annotated in read_annotations(file, self.images):
            known.add(annotated.label)
            if self.labels is None or annotated.label in self.labels:
                with naming_files(annotated.picture, file):
                    _check_drawn_on(annotated)
                    segmenter.add_support(annotated.picture, annotated.mask, annotated.label)
        return known


def _check_drawn_on(annotated: AnnotatedMask) -> None:
    frame, size = frame_of(annotated.picture), annotated.mask.shape
    if size not in (frame.size, frame.stored_size):
        raise DatasetError(
            f"the annotations are of a picture of {size_text(size)}, but this one is of {size_text(frame.size)} "
            "(height x width). Say by --images (images=) where the picture lies that they were drawn on, or export "
            "them again."
        )


def split_label(text: str) -> tuple[str, str | None, Value | None]:
    """Path, label and value of ``path``, ``path:label`` or ``path:label=value``; the longest path that is a file.

    Raises:
        LabelError: a file, and an empty label.
    """
    ends = [len(text), *(i for i in range(len(text) - 1, 0, -1) if text[i] == ":")]
    for end in ends:
        if is_file(text[:end]):
            return (text, None, None) if end == len(text) else (text[:end], *_label_and_value(text[end + 1 :], text))
    return text, None, None


def _label_and_value(text: str, whole: str) -> tuple[str, Value | None]:
    label, equals, numbers = text.rpartition("=")
    values = numbers.split(",")
    if not equals or not all(v.strip().isdecimal() for v in values):
        label, values = text, []
    if not label:
        raise LabelError(f"{whole!r} names no label after the colon; say {whole.rstrip(':')}:cat, or no colon.")
    return label, tuple(int(v) for v in values) or None


@contextmanager
def naming_files(*files: PathText) -> Iterator[None]:
    """Put the names of the files before the message of an error that they cause."""
    try:
        yield
    except IirError as error:
        named = " with ".join(os.fspath(file) for file in files)
        cure = " On the command line, :label=3 behind the mask's name." if "value=" in str(error) else ""
        cure = cure if isinstance(error, MaskError) else ""
        raise type(error)(f"{named}: {error}{cure}") from error


def check_labels(wanted: Collection[str], known: Collection[str]) -> None:
    """Refuse a label that no support has, by a LabelError that names those that they have."""
    for label in wanted:
        if label not in known:
            raise LabelError(f"no support has label {label!r}{did_you_mean(label, known, 'labels')}")


def _label_of(image: PathText, label: str | None, known: Sequence[str]) -> str:
    if label is None and len(known) > 1:
        raise LabelError(
            f"counterexample {os.fspath(image)!r}: of which label? Say {os.fspath(image)}:{known[0]}; the supports "
            f"have {', '.join(known)}."
        )
    if label is not None:
        check_labels([label], known)
    return known[0] if label is None else label


def fingerprint(segmenter: FewShotSegmenter) -> str:
    """A sha256 of all supports and counterexamples, by what they were made from: the same in every run."""
    digest = hashlib.sha256()
    examples: tuple[Example, ...] = (*segmenter.supports.supports, *segmenter.supports.counterexamples)
    for example in examples:
        for part in (type(example).__name__.encode(), example.label.encode(), *_contents(example)):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _contents(example: Example) -> Iterator[bytes]:
    yield repr(example.image_size).encode()
    if isinstance(example, Support):
        # Of a box the box: its mask is the network's own, which may differ by a pixel where cores do.
        yield from (repr(example.box).encode(),) if example.box else (example.packed.marked, example.packed.stated)
    if example.picture:
        yield example.picture
        return
    # Without a copy of the picture, what the network made of it.
    arrays = list(example.state.arrays().values()) if isinstance(example, Support) else []
    arrays += [] if isinstance(example, Support) else [array for _, array in example.tokens.parts()]
    yield from (array.tobytes() for array in arrays)
