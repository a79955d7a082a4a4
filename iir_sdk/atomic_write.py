"""Writes a file beside its place and renames it, so that no reader ever meets half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from iir_sdk.errors import OutputError


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file next to ``path`` and move it there.

    Args:
        path: where the file shall be; an existing one is replaced in one step.
        write: gets the temporary path, which has the same suffix.

    Returns:
        The final path.

    Raises:
        OutputError: the folder is missing, or the file cannot be written.
    """
    final = Path(path)
    check_writable_place(final)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{final.stem}-", suffix=final.suffix, dir=final.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(f"cannot write {str(final)!r}: {error}.") from error
    beside = Path(name)
    try:
        write(beside)
        # mkstemp makes files private; give this one what a plain open() would have given it.
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)
        beside.replace(final)
    except OSError as error:
        raise OutputError(f"cannot write {str(final)!r}: {error}.") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    return final


def check_writable_place(path: Path) -> None:
    """Refuse a place where no file can be, before anything is made that shall go there.

    Raises:
        OutputError: the folder is missing, or the path is a folder itself.
    """
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {str(path)!r}: no folder {str(path.parent)!r}; create it first.")
    if path.is_dir():
        raise OutputError(f"cannot write {str(path)!r}: it is a folder; name a file.")


def write_text_atomically(path: str | os.PathLike[str], text: str) -> Path:
    """As :func:`write_atomically`, of text in UTF-8."""
    return write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8"))
