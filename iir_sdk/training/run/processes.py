"""One process, or the several that ``torchrun`` starts: who they are, and what they share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from iir_sdk.engines.devices import pick_device
from iir_sdk.errors import IirError


@dataclass(frozen=True)
class Processes:
    """The processes of a run: this one's number, how many there are, and this one's number on its machine."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0

    def device_of(self, device: str) -> torch.device:
        """This process's, of ``auto`` or a torch device: of several each has a CUDA device of its own."""
        return pick_device(f"cuda:{self.local_rank}" if self.count > 1 and _is_cuda(device) else device)

    def mean(self, value: float, device: torch.device) -> float:
        """Mean of a number over all processes."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
        distributed.all_reduce(shared)
        return float(shared) / self.count

    @contextmanager
    def together(self) -> Iterator[None]:
        """Go on when all have come through this; where it fails in one, none does, and one alone says why.

        Raises:
            IirError: of a run that is one process.
            SystemExit: with code 1 in each of several, once the first that failed has printed its error.
        """
        failure: IirError | None = None
        try:
            yield
        except IirError as error:
            if self.count == 1:
                raise
            failure = error
        if self.count == 1:
            return
        failures: list[str | None] = [None] * self.count
        distributed.all_gather_object(failures, str(failure) if failure else None)
        told = next((rank for rank, text in enumerate(failures) if text), None)
        if told is None:
            return
        if told == self.rank:
            print(f"Error: {failures[told]}", file=sys.stderr, flush=True)
        # Where one has ended torchrun ends the others, so not before it is said.
        self.wait()
        raise SystemExit(1)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, if it did: NCCL on CUDA devices, one a process, gloo on others."""
    if not distributed.is_available() or not distributed.is_torchelastic_launched():
        yield Processes()
        return
    cuda, local = _is_cuda(device), int(os.environ["LOCAL_RANK"])
    if cuda:
        torch.cuda.set_device(local)
    store, rank, count = next(rendezvous("env://"))
    # Where torchrun starts processes again, addresses of those that have ended are in its store still.
    store = PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    # The others wait while the first validates.
    patience = timedelta(hours=12)
    distributed.init_process_group(
        "nccl" if cuda else "gloo", store=store, rank=rank, world_size=count, timeout=patience
    )
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), local)
    finally:
        distributed.destroy_process_group()


def _is_cuda(device: str) -> bool:
    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
