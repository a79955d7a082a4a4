"""What lies at a path, and files written beside their place and renamed: no reader ever meets half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from iir_sdk.errors import IirError, OutputError

if TYPE_CHECKING:
    from filelock import FileLock
    from torch import Tensor


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a file of the same suffix next to ``path``, and move it there in one step.

    An OutputError where the folder is missing, or the file cannot be written.
    """
    final = Path(path)
    check_writable_place(final)
    beside = final.with_name(f".iir-{secrets.token_hex(4)}{final.suffix}")
    try:
        # Unlike tempfile's, with the rights that a plain open() gives.
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            write(beside)
            beside.replace(final)
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {str(final)!r}: {error}.") from error
    return final


def check_writable_place(path: Path) -> None:
    """Refuse, by an OutputError, a place where no file can be, before anything is made that shall go there."""
    if "\0" in str(path):
        raise OutputError(f"cannot write {str(path)!r}: no path holds a null character.")
    if not is_folder(path.parent):
        raise OutputError(
            f"cannot write {str(path)!r}: no folder {str(path.parent)!r}, or no right to enter it; create it first."
        )
    if is_folder(path):
        raise OutputError(f"cannot write {str(path)!r}: it is a folder; name a file.")


def made_folder(path: str | os.PathLike[str]) -> Path:
    """A folder, with those that it lies in, made where it is missing; an OutputError if it cannot be."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot make folder {str(folder)!r}: {error}.") from error
    return folder


def lock_folder(lock_file: Path, folder: Path, taken: IirError) -> FileLock:
    """The lock of a folder, held until it is released; ``taken`` is raised where another process holds it.

    Raises:
        OutputError: the folder cannot be written into.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise taken from error
    except OSError as error:
        raise OutputError(f"cannot write into {str(folder)!r}: {error}.") from error
    return lock


def write_text_atomically(path: str | os.PathLike[str], text: str) -> Path:
    """As :func:`write_atomically`, of text in UTF-8."""
    return write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write tensors, moved to the CPU, with text beside them; an OutputError if the file cannot be."""
    from safetensors.torch import save

    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    # As bytes: the library's own file writing raises an error of its own on a full disk.
    content = save(plain, dict(metadata))
    return write_atomically(path, lambda beside: beside.write_bytes(content))


# Not pathlib's own questions, which raise on names too long and in folders that may not be entered.
def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file that can be seen."""
    return os.path.isfile(path)  # noqa: PTH113


def why_no_folder(path: str | os.PathLike[str]) -> str:
    """That it is a file, or that nothing is there, and from where a relative path was followed."""
    shown = repr(os.fspath(path))
    if is_file(path):
        return f"{shown} is a file, and not a folder"
    return f"there is no folder {shown}{followed_from(path)}"


def followed_from(path: str | os.PathLike[str]) -> str:
    """For messages on a path that leads nowhere: from where it was followed, where it does not say so itself."""
    return "" if Path(path).is_absolute() else f", from {str(Path.cwd())!r}"


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether there is a folder that can be seen."""
    return os.path.isdir(path)  # noqa: PTH112
