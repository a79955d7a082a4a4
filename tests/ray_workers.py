"""Workers that fail as machines do, and a cluster of two of them; for tests of batches and of folders."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iir_sdk.ray.batch import PartJob, PartWorker
from iir_sdk.ray.items import Item


class FragileWorker(PartWorker):
    """Dies of pictures named ``killer``, and has memory for two pictures at a time, but for none named ``huge``."""

    most_deaths = 1

    def open(self, job: PartJob) -> None:
        super().open(job)
        plain = job.segmenting

        class Segmenting(type(plain)):  # type: ignore[misc]
            def batches(self) -> Any:
                from iir_sdk.segmenting import work

                segment = work.batch_segmenter(self.segmenter, self.labels, self.cutting, self.batch_size, None)
                return work.within_memory(lambda batch: _segmented(segment, batch))

        self.segment = Segmenting(**vars(plain)).batches()


def _segmented(segment: Any, batch: list[Any]) -> Any:
    names = [read.query.path for read in batch]
    if any("killer" in name for name in names):
        os.kill(os.getpid(), signal.SIGKILL)
    if len(batch) > 2:
        raise MemoryError
    if any("huge" in name for name in names):
        # As torch says it of a CPU.
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
    return segment(batch)


class FullDiskWorker(PartWorker):
    """Whose disk has room for one part."""

    written = 0

    def answers(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        if FullDiskWorker.written:
            Path.write_bytes = _full  # type: ignore[assignment, method-assign]
        FullDiskWorker.written += 1
        return super().answers(batch)


def _full(path: Path, content: bytes) -> int:
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class BrokenWorker(PartWorker):
    """With a fault that nobody foresaw, of pictures named ``odd``."""

    def made_of(self, given: list[Item]) -> list[dict[str, Any]]:
        if any("odd" in item.id for item in given):
            raise ZeroDivisionError("an odd one")
        return super().made_of(given)
