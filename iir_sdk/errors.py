"""Every error a user can cause. Each message says what is wrong, with which value, and what to do.

All kinds inherit :class:`IirError` and the built-in that fits, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

import collections.abc
import contextlib


class IirError(Exception):
    """Base of every error raised on purpose by ``iir_sdk``."""


class IirWarning(UserWarning):
    """What is doubtful, and taken one way; the message says which, and how to say what is meant."""


class ImageError(IirError, ValueError):
    """A picture cannot be used: wrong shape, dtype, range, size or broken bytes."""


class MaskError(IirError, ValueError):
    """A mask cannot be used: empty, all foreground, wrong shape, or not the picture's size."""


class MemoryShortageError(IirError, MemoryError):
    """A picture that takes more memory than there is, alone."""


# What allocators say whose kind of error is no MemoryError: PIL's decoders, torch's, a graphics card's, the system's.
_SHORTAGES = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc")


def is_memory_shortage(error: BaseException | None) -> bool:
    """Whether an error, or the one that it was raised from, says that there is no memory left."""
    if error is None:
        return False
    # GDAL's and torch's have kinds by that name.
    named = isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
    said = isinstance(error, (RuntimeError, OSError)) and any(text in str(error).lower() for text in _SHORTAGES)
    return named or said or is_memory_shortage(error.__cause__)


def memory_shortage(what: str, error: BaseException) -> MemoryShortageError:
    """What to tell users of it, where ``what`` alone takes too much."""
    return MemoryShortageError(
        f"{what} takes more memory than there is ({str(error) or type(error).__name__:.200}); shrink it, give the "
        "process more, or have fewer processes share the machine."
    )


@contextlib.contextmanager
def telling_of_memory(what: str) -> collections.abc.Iterator[None]:
    """Raise a MemoryShortageError of ``what`` where memory does not suffice for the block."""
    try:
        yield
    except IirError:
        raise
    except Exception as error:
        if is_memory_shortage(error):
            raise memory_shortage(what, error) from error
        raise


class PictureNotFoundError(IirError, FileNotFoundError):
    """A picture or mask path that does not exist."""


class VideoError(IirError, ValueError):
    """A video cannot be used, or only up to a frame: no video, damaged, cut off, or of changing size."""


class LabelError(IirError, KeyError):
    """A label that is unknown, missing, or must be named."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument, quotes and all.
        return str(self.args[0]) if self.args else ""


class NoSupportError(IirError, RuntimeError):
    """Prediction was asked for before any support was added."""


class SupportError(IirError, ValueError):
    """A support or a saved support file that does not fit this checkpoint."""


class ConfigError(IirError, ValueError):
    """A model or training setting that is unknown or out of its range."""


class DeviceError(IirError, RuntimeError):
    """A device that this machine or this torch build does not offer."""


class PrecisionError(IirError, ArithmeticError):
    """Numbers left the range of the chosen dtype, or masks in it are not those of float32."""


class WeightsError(IirError, ValueError):
    """A checkpoint or manifest that cannot be read as one."""


class WeightsNotFoundError(IirError, FileNotFoundError):
    """A checkpoint name or path that leads nowhere."""


class IntegrityError(WeightsError):
    """A checkpoint whose bytes or tensors are not the expected ones."""


class HubError(IirError, ConnectionError):
    """The Hugging Face Hub cannot be reached, or did not deliver."""


class HubAccessError(HubError, PermissionError):
    """The Hub refuses: no valid token, or a repository that this account may not read or write."""


class DatasetError(IirError, ValueError):
    """A training or evaluation folder that cannot serve episodes."""


class TooFewPicturesError(DatasetError):
    """A set with too few pictures of its classes for the shots that are asked for."""


class NoAbsenceError(DatasetError):
    """A set of which every picture shows some class, where pictures without it are needed."""


class DatasetNotFoundError(IirError, FileNotFoundError):
    """A dataset folder or one of its files that does not exist."""


class OutputError(IirError, OSError):
    """A result that cannot be written where it was asked to go."""


class ProjectError(IirError, ValueError):
    """A project of the page that cannot be opened, or something that it does not hold."""


class RequestError(IirError, ValueError):
    """A request to the server that is not as its documentation says."""


class RequestTooLargeError(RequestError):
    """A request of more bytes, pixels or pictures than the server takes."""


class SupportSetError(IirError, ValueError):
    """A set of supports that cannot be made or changed: its name is taken, or it is there to stay."""


class SupportSetNotFoundError(IirError, LookupError):
    """A set of supports that the server does not hold."""


class LabelStudioError(IirError, ConnectionError):
    """Label Studio cannot be reached, refuses, or names what is not to be fetched."""


class BusyError(IirError, TimeoutError):
    """A server that has too much to do, or that took too long."""


class ServingError(IirError, RuntimeError):
    """Replicas that cannot be started, or a cluster that cannot be had."""


class MissingDependencyError(IirError, ImportError):
    """An optional package that this feature needs is not installed."""


@contextlib.contextmanager
def needed_imports(cure: str) -> collections.abc.Iterator[None]:
    """Around imports of optional packages: where one fails, a MissingDependencyError says what needs it."""
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(cure) from error


class TrainingError(IirError, ArithmeticError):
    """A training run whose numbers went wrong."""
