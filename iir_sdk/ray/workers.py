"""Workers: actors that hold the network once and segment batch after batch, whatever becomes of single pictures."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from iir_sdk.errors import (
    ConfigError,
    IirError,
    ImageError,
    MissingDependencyError,
    OutputError,
    is_memory_shortage,
    memory_shortage,
)
from iir_sdk.ray.attempts import Notes, running_attempts
from iir_sdk.ray.cluster import as_text, connected, from_text, quiet, resources
from iir_sdk.ray.parts import part_name
from iir_sdk.segmenting.journal import Record, Stamp
from iir_sdk.segmenting.outputs import Outputs
from iir_sdk.segmenting.queries import Query
from iir_sdk.segmenting.reading import Read, read_batches
from iir_sdk.segmenting.run import Outcome, Work
from iir_sdk.segmenting.work import Segmenting

Given = TypeVar("Given")
Made = TypeVar("Made")

_BATCHES = 2
"""Of a folder's pictures that a worker is sent together."""


class Worker(ABC, Generic[Given, Made]):
    """What an actor does with a batch; its answers are JSON, an error that ends the run among them.

    Args:
        job: a reference to a ``Job`` in the object store, whence each machine gets it once.
        attempts: the actor of :class:`iir_sdk.ray.attempts.Attempts`.
    """

    most_deaths = 2
    """Workers that a picture may kill while they do it alone, before it is left out."""

    def __init__(self, job: list[Any], attempts: Any) -> None:
        import ray

        self.notes = Notes(attempts)
        self.failure = ""
        try:
            self.open(ray.get(job[0]))
        except IirError as error:
            # Told in an answer: an actor that cannot be made is made again and again.
            self.failure = as_text(error)

    @abstractmethod
    def open(self, job: Any) -> None:
        """Make ready, in the actor."""

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """Answers of a batch of rows."""
        try:
            answers = [{"failure": self.failure}] if self.failure else self.answers(batch)
        except IirError as error:
            answers = [{"failure": as_text(error)}]
        return {"answer": [json.dumps(answer) for answer in answers]}

    @abstractmethod
    def answers(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What the driver is told of a batch."""

    @abstractmethod
    def made_of(self, given: list[Given]) -> list[Made]:
        """Segment pictures, and make of each what the output holds."""

    @abstractmethod
    def left_out(self, given: Given, error: IirError) -> list[Made]:
        """What the output holds of a picture without masks."""

    def made_safely(self, given: list[Given], ids: Sequence[str]) -> list[Made]:
        """As :meth:`made_of`; one at a time where a worker has died of them, without what they keep dying of."""
        name = part_name(ids)
        if self.notes.begin(name) == 0:
            made = self._made_each(given)
        else:
            made = [m for one, text in zip(given, ids, strict=True) for m in self._made_alone(one, text)]
        self.notes.end(name, len(given))
        return made

    def _made_alone(self, given: Given, text: str) -> list[Made]:
        with self.notes.alone(text) as deaths:
            if deaths < self.most_deaths:
                return self._made_each([given])
            return self.left_out(
                given,
                ImageError(
                    f"{text!r} has killed its worker {deaths} times when it was done alone, as a picture does that "
                    "takes more memory than there is; shrink it, or give workers more memory, and say "
                    "retry_errors=True."
                ),
            )

    def _made_each(self, given: list[Given]) -> list[Made]:
        """As :meth:`made_of`; of what fails in a way that nobody foresaw each alone, and then its error."""
        try:
            return self.made_of(given)
        except (OutputError, MissingDependencyError):
            raise
        except Exception as error:
            told = _told(error)
        if len(given) == 1:
            return self.left_out(given[0], told)
        return [made for one in given for made in self._made_each([one])]


def _told(error: Exception) -> IirError:
    if isinstance(error, IirError):
        return error
    return memory_shortage("it", error) if is_memory_shortage(error) else ImageError(f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class FolderJob:
    """What workers of a folder get."""

    segmenting: Segmenting
    outputs: Outputs


class FolderWorker(Worker[Query, Record]):
    """Writes pictures' files as ``iir-sdk segment`` does, and answers with their records."""

    def open(self, job: FolderJob) -> None:
        """See :class:`Worker`."""
        self.job = job
        self.segment: Callable[[list[Read]], list[Outcome]] = job.segmenting.batches()

    def answers(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        """See :class:`Worker`."""
        queries = [Query(str(path), str(name)) for path, name in zip(batch["path"], batch["name"], strict=True)]
        return [asdict(record) for record in self.made_safely(queries, [query.key for query in queries])]

    def made_of(self, given: list[Query]) -> list[Record]:
        """See :class:`Worker`."""
        batches = read_batches(given, self.job.segmenting.batch_size)
        return [self.job.outputs.record(*outcome) for batch in batches for outcome in self.segment(batch)]

    def left_out(self, given: Query, error: IirError) -> list[Record]:
        """See :class:`Worker`."""
        return [self.job.outputs.record(Read(given, error, Stamp.of(given.key), 0.0), error, 0.0)]


@dataclass(frozen=True)
class Workers:
    """Ray's workers that do pictures, for ``segment_folder(..., cluster=Workers())`` and :func:`iir_sdk.ray.segment`.

    Attributes:
        address: of a cluster, ``auto`` for the one that this machine belongs to; None starts Ray on this machine alone.
        count: how many workers, or the least and the most, ``(1, 64)``, between which Ray chooses; None for one a core,
            or as many as share the graphics cards.
        num_cpus: cores of each; None for one.
        num_gpus: graphics cards of each, such as 0.5 for two workers on one; 0 for none.

    Raises:
        ConfigError: one of them is out of its range.
    """

    address: str | None = None
    count: int | tuple[int, int] | None = None
    num_cpus: float | None = None
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        least, most = self.count if isinstance(self.count, tuple) else (self.count, self.count)
        whole = all(n is None or (type(n) is int and n >= 1) for n in (least, most))
        if not whole or (least is not None and most is not None and least > most):
            raise ConfigError(f"count={self.count!r} must be None, a number of workers, or the least and the most.")
        if self.num_gpus < 0 or (self.num_cpus is not None and self.num_cpus <= 0):
            raise ConfigError(f"num_cpus={self.num_cpus!r}, num_gpus={self.num_gpus!r} must not be negative.")

    def pool(self, cores: float, spare: int) -> Any:
        """Ray's strategy: as many as asked for, or as the cluster has room for."""
        from ray.data import ActorPoolStrategy

        if isinstance(self.count, tuple):
            return ActorPoolStrategy(min_size=self.count[0], max_size=self.count[1])
        present = resources()
        room = present.get("GPU", 0) / self.num_gpus if self.num_gpus else (present.get("CPU", 1) - spare) // cores
        return ActorPoolStrategy(size=self.count or max(1, int(room)))

    def answers(
        self,
        dataset: Any,
        worker: type[Worker[Any, Any]],
        job: Any,
        attempts: Any,
        *,
        batch: int,
        cores: float = 1.0,
        spare: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """What workers answer to a dataset, as it comes; raises the error that ends a run.

        Args:
            dataset: rows.
            worker: class of the actors.
            job: what they get, by way of the object store.
            attempts: the actor of :class:`iir_sdk.ray.attempts.Attempts`.
            batch: rows that they get together.
            cores: of each, where ``num_cpus`` does not say.
            spare: cores to leave to the dataset's own steps.
        """
        import ray

        stored = ray.put(job)
        each = self.num_cpus or cores
        mapped = dataset.map_batches(
            worker,
            # In a list, so that Ray does not fetch it for every actor's constructor.
            fn_constructor_kwargs={"job": [stored], "attempts": attempts},
            batch_size=batch,
            batch_format="numpy",
            compute=self.pool(each, spare),
            num_cpus=each,
            num_gpus=self.num_gpus or None,
        )
        for rows in quiet(mapped).iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for text in rows["answer"].to_pylist() if rows.num_columns else ():
                answer = json.loads(text)
                if "failure" in answer:
                    raise from_text(answer["failure"])
                yield answer

    def work(self, segmenting: Segmenting, outputs: Outputs) -> Work:
        """What does a folder's pictures, for ``segment_folder``: all machines see the same files under the same paths.

        Raises:
            MissingDependencyError: Ray is not installed.
            ConfigError: no cluster is at the address.
        """

        def work(queries: Sequence[Query], done: Callable[[Record], None]) -> None:
            if not queries:
                return
            with connected(self.address), running_attempts() as attempts:
                import pyarrow as pa
                import ray.data

                size = _BATCHES * segmenting.batch_size
                chunks = [queries[i : i + size] for i in range(0, len(queries), size)]
                blocks = [pa.table({"path": [q.key for q in c], "name": [q.name for q in c]}) for c in chunks]
                given = {query.key: query.path for query in queries}
                job = FolderJob(segmenting, outputs)
                dataset = ray.data.from_blocks(blocks)
                for answer in self.answers(dataset, FolderWorker, job, attempts, batch=size):
                    record = Record.from_dict({**answer, "files": tuple(answer["files"])})
                    done(record.as_given(given[record.key]))

        return work
