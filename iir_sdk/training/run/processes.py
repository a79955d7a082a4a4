"""One process, or the several that ``torchrun`` starts: who they are, and what they share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed


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

    def mean(self, value: float, device: torch.device) -> float:
        """Mean of a number over all processes."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
        distributed.all_reduce(shared)
        return float(shared) / self.count

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
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    local = int(os.environ["LOCAL_RANK"])
    if cuda:
        torch.cuda.set_device(local)
    # The others wait while the first validates.
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(hours=12))
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), local)
    finally:
        distributed.destroy_process_group()
