"""MATLAB's files, in which some of the benchmarks come."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from iir_sdk.data.dataset import require
from iir_sdk.errors import DatasetError, MissingDependencyError


def read_matlab(path: Path, what: str) -> dict[str, Any]:
    """A file's variables by name, structures with attributes.

    Raises:
        DatasetNotFoundError: it is missing.
        DatasetError: it cannot be read.
        MissingDependencyError: scipy is not installed.
    """
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise MissingDependencyError(f"{path} is a MATLAB file; run: pip install 'iir-sdk[data]'") from error
    require(path, what)
    try:
        content: dict[str, Any] = loadmat(path, squeeze_me=True, struct_as_record=False)
    except (MatReadError, OSError, ValueError, TypeError, NotImplementedError, zlib.error) as error:
        raise DatasetError(f"{path} cannot be read as a MATLAB file ({error}); fetch it again.") from error
    return content
