"""Which pictures are to be segmented, and what their outputs are called."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from iir_sdk.errors import ConfigError, OutputError, PictureNotFoundError
from iir_sdk.files import is_file, is_folder

SUFFIXES = frozenset(
    ".jpg .jpeg .jfif .png .webp .bmp .tif .tiff .gif .avif .heic .heif .jp2 .jxl .ppm .pgm".split()  # noqa: SIM905
)
"""Of the files that are taken from a folder."""


@dataclass(frozen=True)
class Query:
    """A picture to segment."""

    path: str  # as it was given, or found in a folder that was
    name: str  # of its outputs, without a suffix: relative to what all queries lie in, parts joined by "/"

    @property
    def key(self) -> str:
        """The absolute path: the same for the same file, however it was given."""
        return absolute(self.path)


@dataclass(frozen=True)
class Place:
    """Where a picture lies."""

    path: str  # as it was given, or found in a folder that was
    root: str  # the folder that it was taken from


def find_places(
    patterns: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    recursive: bool = False,
    out: Path,
    masks: Collection[str] = (),
) -> dict[str, Place]:
    """Where files, folders, globs, lists (``@list.txt``) and ``-`` (a list on stdin) lead to, by absolute path.

    What lies in ``out`` is left out, and so are the supports' own ``masks``.

    Args:
        patterns: as above. A list holds one of them a line, from the current folder or else the list's own.
        recursive: folders with all the folders in them.
        out: where outputs go.
        masks: absolute paths.

    Raises:
        PictureNotFoundError: one of them leads to no picture; one that a list names is a place all the same.
        ConfigError: a list has a line that is no path.
        OutputError: ``out`` is a folder of queries itself.
    """
    given = [patterns] if isinstance(patterns, (str, os.PathLike)) else list(patterns)
    if not given:
        raise PictureNotFoundError("no queries: name files, folders, globs or a list (@list.txt).")
    output = absolute(out)
    places: dict[str, Place] = {}
    for pattern in given:
        taken = {absolute(place.path): place for place in _places(os.fspath(pattern), recursive, output)}
        usable = {key: p for key, p in taken.items() if key not in masks and not _lies_in(key, output)}
        if not usable:
            raise PictureNotFoundError(_nothing_at(os.fspath(pattern), recursive, len(taken)))
        places = {**usable, **places}
    return places


def _nothing_at(pattern: str, recursive: bool, left_out: int) -> str:
    if left_out:
        return f"query {pattern!r}: its {left_out} pictures are supports' masks, or lie in the output folder."
    if is_folder(pattern):
        cure = "" if recursive else " For the folders in it say -r (recursive=True)."
        return f"query {pattern!r}: no picture ({', '.join(sorted(SUFFIXES))}) in this folder.{cure}"
    if glob.has_magic(pattern):
        return f"query {pattern!r}: no file fits this pattern, from {str(Path.cwd())!r}; '**' stands for all folders."
    if pattern.startswith("@") or pattern == "-":
        return f"query {pattern!r}: the list is empty; it holds one path a line."
    return f"query {pattern!r}: no file or folder there, from {str(Path.cwd())!r}."


def _places(pattern: str, recursive: bool, out: str) -> Iterator[Place]:
    if is_file(pattern):
        yield _file(pattern)
    elif is_folder(pattern):
        if absolute(pattern) == out:
            raise OutputError(f"cannot write into {pattern!r}: queries are read from it; name another --out.")
        yield from _in_folder(pattern, recursive)
    elif pattern == "-":
        yield from _listed(sys.stdin.buffer.read(), "stdin", "", recursive, out)
    elif pattern.startswith("@"):
        file = pattern[1:]
        try:
            content = Path(file).read_bytes()
        except (OSError, ValueError) as error:
            raise PictureNotFoundError(f"the list {file!r} cannot be read: {error}.") from error
        yield from _listed(content, file, os.path.dirname(file), recursive, out)  # noqa: PTH120
    elif glob.has_magic(pattern):
        files = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        yield from (_file(f) for f in files if is_file(f) and _is_picture(f))


def _file(path: str) -> Place:
    return Place(path, os.path.dirname(absolute(path)))  # noqa: PTH120


def _in_folder(folder: str, recursive: bool) -> Iterator[Place]:
    root = absolute(folder)
    for parent, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith(".")) if recursive else []
        yield from (Place(os.path.join(parent, f), root) for f in sorted(files) if _is_picture(f))  # noqa: PTH118


def _is_picture(path: str) -> bool:
    # Hidden files are what file systems and unfinished runs leave.
    return Path(path).suffix.lower() in SUFFIXES and not Path(path).name.startswith(".")


def _listed(content: bytes, what: str, beside: str, recursive: bool, out: str) -> Iterator[Place]:
    """Places of a list's lines; a line that leads nowhere is a place, too, whose picture will not be there."""
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        text = os.fsdecode(line).strip()
        if not text or text.startswith("#"):
            continue
        if "\0" in text:
            raise ConfigError(f"line {number} of {what} holds a null character and is no path: one path a line, UTF-8.")
        if text == "-" or text.startswith("@"):
            raise ConfigError(f"line {number} of {what} is {text!r}: a list names no other lists.")
        near = os.path.join(beside, text)  # noqa: PTH118
        path = near if not os.path.lexists(text) and os.path.lexists(near) else text
        places = list(_places(path, recursive, out))
        yield from places or [_file(path)]


def named_queries(places: Mapping[str, Place], names: Mapping[str, str]) -> list[Query]:
    """Places as queries, in order, under names relative to what all of them lie in.

    No two have one name, also where upper and lower case are the same; ``names`` of earlier runs, by absolute path,
    stay.
    """
    root = _common({place.root for place in places.values()})
    taken = {name.casefold() for name in names.values()}
    queries = []
    for key, place in places.items():
        name = names.get(key) or next(n for n in _candidates(key, root) if n.casefold() not in taken)
        taken.add(name.casefold())
        queries.append(Query(place.path, name))
    return queries


def _candidates(key: str, root: str | None) -> Iterator[str]:
    """Names for the outputs of a picture, the best first, without end."""
    path = Path(key)
    relative = path.relative_to(root) if root is not None else Path(path.name)
    stem = _readable(relative.with_suffix("").as_posix())
    yield stem
    with_suffix = stem + path.suffix.replace(".", "_")
    yield with_suffix
    number = 2
    while True:
        yield f"{with_suffix}~{number}"
        number += 1


def _readable(name: str) -> str:
    """With backslashes, what ends lines and bytes that are no UTF-8 as in a URL, since lists hold names."""
    return "".join(
        f"%{ord(c) & 0xFF:02X}" if c == "\\" or not (c.isprintable() or ord(c) > 0xDFFF) else c for c in name
    )


def _common(roots: Collection[str]) -> str | None:
    """The folder that all lie in; None on different drives."""
    try:
        return os.path.commonpath(roots)
    except ValueError:
        return None


def absolute(path: str | os.PathLike[str]) -> str:
    """An absolute path without ``..``, links as they are."""
    return os.path.abspath(path)  # noqa: PTH100


def _lies_in(path: str, folder: str) -> bool:
    return Path(folder) in Path(path).parents
