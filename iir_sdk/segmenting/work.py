"""Pictures of a folder segmented and written, in this process, or by a cluster's in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.segmenting.journal import Record
from iir_sdk.segmenting.large import segmented_file
from iir_sdk.segmenting.memory import within_memory
from iir_sdk.segmenting.outputs import Outputs
from iir_sdk.segmenting.queries import Query
from iir_sdk.segmenting.reading import Read, read_batches
from iir_sdk.segmenting.run import Cutting, Outcome, Work, batch_segmenter


@dataclass(frozen=True)
class Segmenting:
    """How pictures are segmented: all of it, so that another process does the same.

    Attributes:
        segmenter: with its supports.
        labels: that are looked for.
        cutting: how pictures become masks.
        formats: that are written; some take no pictures beyond memory.
        batch_size: pictures computed together.
        progress: show a bar of a large picture's windows.
    """

    segmenter: FewShotSegmenter
    labels: tuple[str, ...]
    cutting: Cutting
    formats: tuple[str, ...]
    batch_size: int
    progress: bool = False

    def check(self) -> None:
        """Raise now what the arguments are refused for: a ConfigError."""
        self.batches()

    def batches(self) -> Callable[[list[Read]], list[Outcome]]:
        """What segments a batch that was read, a smaller one at a time where memory is short."""
        large = partial(
            segmented_file,
            segmenter=self.segmenter,
            labels=self.labels,
            cutting=self.cutting,
            formats=self.formats,
            progress=self.progress,
        )
        return within_memory(batch_segmenter(self.segmenter, self.labels, self.cutting, self.batch_size, large))


class Cluster(Protocol):
    """Other processes that do pictures, such as :class:`iir_sdk.ray.Workers`."""

    def work(self, segmenting: Segmenting, outputs: Outputs) -> Work:
        """What segments pictures there, and writes their files."""


def in_this_process(segmenting: Segmenting, outputs: Outputs) -> Work:
    """Segments pictures here; a thread writes a batch's files while the next one is computed."""
    segment = segmenting.batches()

    def write(outcomes: list[Outcome], done: Callable[[Record], None]) -> None:
        for outcome in outcomes:
            done(outputs.record(*outcome))

    def work(queries: Sequence[Query], done: Callable[[Record], None]) -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="iir-write") as writing:
            last: Future[None] | None = None
            for batch in read_batches(queries, segmenting.batch_size):
                outcomes = segment(batch)
                if last is not None:
                    last.result()
                last = writing.submit(write, outcomes, done)
            if last is not None:
                last.result()

    return work
