"""What workers are at, noted outside of them: so that a picture that kills its worker is met more carefully."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Attempts:
    """Batches and pictures that were begun and not ended, counted; an actor of the cluster, without state to keep.

    Attributes:
        begun: how many times each batch was begun; ended ones are gone.
        pictures: likewise pictures, of batches that are done one at a time.
        done: pictures of batches that have ended.
    """

    def __init__(self) -> None:
        self.begun: dict[str, int] = {}
        self.pictures: dict[str, int] = {}
        self.done = 0

    def begin(self, batch: str) -> int:
        """Note that a batch is begun, and tell how many times it was before: each time its worker died."""
        self.begun[batch] = self.begun.get(batch, 0) + 1
        return self.begun[batch] - 1

    def end(self, batch: str, count: int) -> None:
        """Note that a batch of so many pictures is done."""
        self.begun.pop(batch, None)
        self.done += count

    def begin_picture(self, picture: str) -> int:
        """As :meth:`begin`, of a picture alone."""
        self.pictures[picture] = self.pictures.get(picture, 0) + 1
        return self.pictures[picture] - 1

    def end_picture(self, picture: str) -> None:
        """Note that it is done."""
        self.pictures.pop(picture, None)

    def progress(self) -> int:
        """How many pictures are done."""
        return self.done


@contextmanager
def running_attempts() -> Iterator[Any]:
    """The actor within, without a core of its own; started again, it counts anew."""
    import ray

    actor = ray.remote(Attempts).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
    try:
        yield actor
    finally:
        ray.kill(actor)


class Notes:
    """A worker's side of :class:`Attempts`."""

    def __init__(self, attempts: Any) -> None:
        self._attempts = attempts

    def begin(self, batch: str) -> int:
        """See :meth:`Attempts.begin`."""
        import ray

        return int(ray.get(self._attempts.begin.remote(batch)))

    def end(self, batch: str, count: int) -> None:
        """See :meth:`Attempts.end`."""
        self._attempts.end.remote(batch, count)

    @contextmanager
    def alone(self, picture: str) -> Iterator[int]:
        """Around the work on one picture: how many workers it has killed before."""
        import ray

        yield int(ray.get(self._attempts.begin_picture.remote(picture)))
        self._attempts.end_picture.remote(picture)
