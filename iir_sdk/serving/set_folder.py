"""Sets of supports as files of a folder that several processes share, the last used ones in memory."""

from __future__ import annotations

import copy
import logging
import os
import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from zlib import crc32

from filelock import FileLock, Timeout

from iir_sdk.errors import BusyError, OutputError, SupportError
from iir_sdk.files import made_folder
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.supports.bank import read_labels
from iir_sdk.web.api.support_sets import (
    BYTES_IN_USE,
    NAME,
    Example,
    SupportSet,
    check_name,
    taken_name,
    taught,
    too_large_set,
    unknown_set,
)

_LOG = logging.getLogger(__name__)

SUFFIX = ".safetensors"
_LOCKS = 64
"""Files that changes are serialized by: sets share them by their names, so that they do not grow with the sets."""

Version = tuple[int, int, int]
"""What tells a file from one that took its place: each is written beside and renamed."""


@dataclass(frozen=True)
class SetOutline:
    """A set, by the head of its file; see :class:`iir_sdk.web.api.support_sets.Outline`."""

    name: str
    supports: Mapping[str, int]
    counterexamples: Mapping[str, int]
    nbytes: int
    preloaded: bool = False


@dataclass(frozen=True)
class _Held:
    version: Version
    of: SupportSet
    nbytes: int


class SetFolder:
    """The sets of a folder; processes that share it see each other's changes at once, and none of these is lost.

    A set is ``FOLDER/NAME.safetensors``, as ``save_supports`` writes it: files that are put there are sets, too. What
    predictions used is held in memory within a bound, the last used first. Threads may use it at once.

    Args:
        segmenter: whose network they share; its own supports are in none of them.
        folder: made where it is missing.
        max_bytes: of memory that sets hold together.
        seconds: that a change waits for another one of the same set.

    Attributes:
        loads: sets read from their files so far; ``evictions``: those that left the memory for others.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(
        self, segmenter: FewShotSegmenter, folder: Path, *, max_bytes: int = 1 << 30, seconds: float = 60.0
    ) -> None:
        self._blank = copy.copy(segmenter)
        self._blank.clear_supports()
        self.folder, self.max_bytes, self._seconds = folder, max_bytes, seconds
        made_folder(folder / ".locks")
        self.loads = self.evictions = 0
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._outlines: dict[str, tuple[Version, SetOutline]] = {}
        self._holding, self._reading = Lock(), [Lock() for _ in range(_LOCKS)]

    @property
    def segmenter(self) -> FewShotSegmenter:
        """A segmenter of the shared network, without supports."""
        return copy.copy(self._blank)

    @property
    def held(self) -> tuple[str, ...]:
        """Names of the sets in memory, the one unused for longest first."""
        with self._holding:
            return tuple(self._held)

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that they hold, at most."""
        with self._holding:
            return sum(held.nbytes for held in self._held.values())

    def __len__(self) -> int:
        return sum(1 for _ in self._names())

    def taught(self, examples: Sequence[Example]) -> FewShotSegmenter:
        """See :meth:`SupportSets.taught`."""
        return taught(self.segmenter, examples)

    def listed(self) -> list[SetOutline]:
        """What there is, by name; files that are none of supports are told of in the log."""
        outlines = []
        for name in sorted(self._names()):
            try:
                outlines.append(self.outline(name))
            except SupportError as error:
                _LOG.warning("%s", error)
            except LookupError:
                continue  # deleted meanwhile
        self._outlines = {outline.name: self._outlines[outline.name] for outline in outlines}
        return outlines

    def outline(self, name: str) -> SetOutline:
        """What a set holds, by the head of its file.

        Raises:
            SupportSetNotFoundError: there is none; a SupportError where it is no file of supports.
        """
        version = self._version(name)
        kept = self._outlines.get(name)
        if kept is not None and kept[0] == version:
            return kept[1]
        with _of_set(name):
            labels = read_labels(self._path(name))
        outline = SetOutline(
            name, Counter(labels.supports), Counter(labels.counterexamples), BYTES_IN_USE * labels.nbytes
        )
        self._outlines[name] = (version, outline)
        return outline

    def get(self, name: str) -> SupportSet:
        """A set, which is now the last used one in memory.

        Raises:
            SupportSetNotFoundError: there is none.
            SupportError: it is of another checkpoint, or no file of supports.
            RequestTooLargeError: it is beyond the bound alone.
        """
        held = self._present(name)
        if held is not None:
            return held
        # Those who ask for the same set at once wait for one who reads it.
        with self._reading[_place(name)]:
            return self._present(name) or self._read(name)

    def file(self, name: str) -> bytes:
        """The set's file; as :meth:`outline`."""
        self._version(name)
        with _of_set(name):
            return self._path(name).read_bytes()

    def create(self, examples: Sequence[Example], name: str | None = None) -> SupportSet:
        """See :meth:`SupportSets.create`; an OutputError where it cannot be written."""
        if name is not None:
            check_name(name)
        name = name or secrets.token_hex(8)
        with self._changing(name):
            if self._path(name).exists():
                raise taken_name(name)
            return self._written(SupportSet(name, self.taught(examples)))

    def add(self, name: str, examples: Sequence[Example]) -> SupportSet:
        """See :meth:`SupportSets.add`; whichever process adds, none of two additions is lost."""
        self._version(name)
        with self._changing(name):
            before = self.get(name)
            return self._written(SupportSet(name, taught(copy.copy(before.segmenter), examples)))

    def forget(self, name: str) -> None:
        """Delete a set's file; a SupportSetNotFoundError where there is none."""
        self._version(name)
        with self._changing(name), _of_set(name):
            self._path(name).unlink()
        self._let_go(name)

    def _names(self) -> Iterator[str]:
        with os.scandir(self.folder) as entries:
            for entry in entries:
                name, suffix = Path(entry.name).stem, Path(entry.name).suffix
                if suffix == SUFFIX and NAME.fullmatch(name):
                    yield name

    def _path(self, name: str) -> Path:
        # Never joined unchecked: a name has neither separators nor a dot at its start.
        if not NAME.fullmatch(name):
            raise unknown_set(name)
        return self.folder / f"{name}{SUFFIX}"

    def _version(self, name: str) -> Version:
        try:
            state = self._path(name).stat()
        except (FileNotFoundError, NotADirectoryError):
            self._let_go(name)
            raise unknown_set(name) from None
        return state.st_ino, state.st_mtime_ns, state.st_size

    def _present(self, name: str) -> SupportSet | None:
        """A set in memory, if its file is still the one that was read."""
        version = self._version(name)
        with self._holding:
            held = self._held.get(name)
            if held is None or held.version != version:
                return None
            self._held.move_to_end(name)
            return held.of

    def _read(self, name: str) -> SupportSet:
        # The version first: of a file that changes between the two, the newer content is read again.
        version, segmenter = self._version(name), self.segmenter
        with _of_set(name):
            segmenter.load_supports(self._path(name).read_bytes())
        with self._holding:
            self.loads += 1
        return self._hold(SupportSet(name, segmenter), version)

    def _written(self, new: SupportSet) -> SupportSet:
        if new.nbytes > self.max_bytes:
            raise too_large_set(new.name, new.nbytes, self.max_bytes)
        try:
            new.segmenter.save_supports(self._path(new.name))
        except OutputError as error:
            _LOG.error("%s", error)  # whoever asked learns nothing of the server's paths
            raise OutputError(f"set {new.name!r} cannot be written, and is as it was.") from error
        return self._hold(new, self._version(new.name))

    def _hold(self, new: SupportSet, version: Version) -> SupportSet:
        """Put a set into the last place in memory, and let go of the first ones beyond the bound."""
        nbytes = new.nbytes
        if nbytes > self.max_bytes:
            raise too_large_set(new.name, nbytes, self.max_bytes)
        with self._holding:
            self._held[new.name] = _Held(version, new, nbytes)
            self._held.move_to_end(new.name)
            total = sum(held.nbytes for held in self._held.values())
            while total > self.max_bytes:
                _, oldest = self._held.popitem(last=False)
                self.evictions += 1
                total -= oldest.nbytes
        return new

    def _let_go(self, name: str) -> None:
        with self._holding:
            self._held.pop(name, None)

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        """Hold the lock of a set's changes among threads and processes; the system frees that of one that is killed."""
        lock = FileLock(self.folder / ".locks" / f"{_place(name):02}")
        try:
            lock.acquire(timeout=self._seconds)
        except Timeout as error:
            raise BusyError(f"set {name!r} has been changed by others for {self._seconds:g} seconds.") from error
        except OSError as error:
            _LOG.error("%s", error)
            raise OutputError(f"set {name!r} cannot be changed: the folder of sets cannot be written.") from error
        try:
            yield
        finally:
            lock.release()


def _place(name: str) -> int:
    return crc32(name.encode()) % _LOCKS


@contextmanager
def _of_set(name: str) -> Iterator[None]:
    """Say of errors which set's they are, and nothing of the server's paths."""
    try:
        yield
    except FileNotFoundError:
        raise unknown_set(name) from None
    except SupportError as error:
        raise SupportError(f"set {name!r}: {error}") from error
    except OSError as error:
        _LOG.error("%s", error)
        raise SupportError(f"set {name!r}: its file cannot be read.") from error
