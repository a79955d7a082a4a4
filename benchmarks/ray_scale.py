"""Pictures a second by Ray's workers against plain processes; what Ray takes beside; memory a worker; decoding.

python -m benchmarks.ray_scale --pictures 48 --workers 1 2 --out scale.json

Every process computes with one thread. As many plain processes at once as there are workers are what the machine gives
without Ray: its cores share their memory, and a busy machine gives nobody all of them. Where other programs share the
machine, clocks say little: the CPU's seconds are given beside those of the clock, of the workers and of all that Ray
runs beside them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.segment_folder import photos_of
from iir_sdk import FewShotSegmenter, segment_folder
from iir_sdk.demo.job import read_jobs
from iir_sdk.pictures.load import load_picture
from iir_sdk.ray import Workers, segment
from iir_sdk.ray.batch import part_rows

_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE = 600
"""Seconds for a process to be warm."""
_MEGAPIXELS = {1: 1155, 4: 2310, 12: 4000}
"""Longer sides of pictures of about so many megapixels."""


@dataclass
class Watch:
    """CPU seconds and memory of this process's descendants, looked at again and again."""

    cpu: dict[int, float] = field(default_factory=dict)
    start: dict[int, float] = field(default_factory=dict)
    workers: set[int] = field(default_factory=set)  # that have ever been one: at its end a worker changes its name
    memory: dict[int, dict[str, int]] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        for pid in descendants(os.getpid()):
            with suppress(OSError, ValueError, IndexError):
                name = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                self.cpu[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
                self.start.setdefault(pid, self.cpu[pid])
                if "PartWorker" in name:
                    self.workers.add(pid)
                    self.memory[pid] = rollup(pid)

    def spent(self, worker: bool) -> float:
        """CPU seconds since the watch began, or since a process did, of workers or of all others."""
        return sum(self.cpu[p] - self.start[p] for p in self.cpu if (p in self.workers) == worker)


def descendants(pid: int) -> Iterator[int]:
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    reached = {pid}
    for _ in range(8):
        reached |= {child for child, parent in parents.items() if parent in reached}
    yield from reached - {pid}


def rollup(pid: int) -> dict[str, int]:
    """Megabytes by kind."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    values = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines}
    return {
        "rss": values["Rss"],
        "pss": values["Pss"],
        "shared": values["Shared_Clean"] + values["Shared_Dirty"],
        "private": values["Private_Clean"] + values["Private_Dirty"],
    }


@contextmanager
def watched() -> Iterator[Watch]:
    watch = Watch()

    def look_on() -> None:
        while not watch.ended.wait(1.0):
            watch.look()

    thread = threading.Thread(target=look_on, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.ended.set()
        thread.join()


def timed(work: Callable[[], object], count: int) -> dict[str, float]:
    cpu, clock = time.process_time(), time.perf_counter()
    work()
    seconds, of_cpu = time.perf_counter() - clock, time.process_time() - cpu
    return {"pictures_a_second": count / seconds, "cpu_ms_a_picture": 1000 * of_cpu / count}


def in_rows(photos: list[Path], segmenter: FewShotSegmenter) -> None:
    """What a worker does, without Ray."""
    for photo, result in zip(photos, segmenter.predict_many(photos), strict=True):
        part_rows(str(photo), result, 0.0)


def at_once(photos: list[Path], segmenter: FewShotSegmenter, processes: int) -> dict[str, Any]:
    """So many plain processes, each of its share, from when all are warm to when the last one ends."""
    context = get_context("spawn")
    warm, answers = context.Barrier(processes + 1), context.SimpleQueue()
    shares = [photos[i::processes] for i in range(processes)]
    started = [context.Process(target=_share, args=(share, segmenter, warm, answers)) for share in shares]
    for process in started:
        process.start()
    warm.wait(_PATIENCE)
    clock = time.perf_counter()
    spent = [answers.get() for _ in started]
    seconds = time.perf_counter() - clock
    for process in started:
        process.join()
    return {
        "processes": processes,
        "pictures_a_second": len(photos) / seconds,
        "cpu_ms_a_picture": 1000 * sum(spent) / len(photos),
    }


def _share(photos: list[Path], segmenter: FewShotSegmenter, warm: Any, answers: Any) -> None:
    """In a process of :func:`at_once`; answers with the CPU's seconds."""
    import torch

    torch.set_num_threads(1)
    in_rows(photos[:1], segmenter)
    warm.wait(_PATIENCE)
    before = time.process_time()
    in_rows(photos, segmenter)
    answers.put(time.process_time() - before)


def by_ray(photos: list[Path], segmenter: FewShotSegmenter, workers: int, work: Path, part: int) -> dict[str, Any]:
    """By the clock of the parts' files, without the first two and the last of each worker.

    In those, workers still start, or one waits for another's end.
    """
    out, left_out = work / f"ray{workers}", 2 * workers
    start, driver_cpu = time.perf_counter(), 0.0
    with watched() as watch:
        finished = threading.Event()

        def begin() -> None:
            nonlocal driver_cpu
            while not finished.is_set() and len(list(out.glob("part-*"))) < left_out:
                time.sleep(0.05)
            driver_cpu = time.process_time()
            watch.look()
            watch.start.clear()
            watch.start.update(watch.cpu)

        thread = threading.Thread(target=begin)
        thread.start()
        segment(photos[0].parent, out, segmenter=segmenter, cluster=Workers(count=workers), part_size=part)
        finished.set()
        thread.join()
    seconds, driver_cpu = time.perf_counter() - start, time.process_time() - driver_cpu
    files = list(out.glob("part-*"))
    times = sorted(file.stat().st_mtime for file in files)
    behind, clock = len(photos) - left_out * part, times[-1] - times[left_out - 1]
    steady = times[left_out - 1 : len(times) - workers]
    # As often by each worker: they end their parts in turn, and often together.
    ended = (len(steady) - 1) // workers * workers
    return {
        "workers": workers,
        "seconds_in_all": seconds,
        "pictures_a_second": part * ended / (steady[ended] - steady[0]),
        "worker_cpu_ms_a_picture": 1000 * watch.spent(worker=True) / behind,
        "cores_of_all_beside_workers": watch.spent(worker=False) / clock,
        "cores_of_the_driver": driver_cpu / clock,
        "memory_mb": list(watch.memory.values()),
        "parquet_bytes_a_row": sum(file.stat().st_size for file in files) / len(photos),
    }


def decoding(work: Path) -> dict[str, Any]:
    """Milliseconds of the CPU that a JPEG takes, by megapixels; and its bytes."""
    rows = {}
    for megapixels, side in _MEGAPIXELS.items():
        (file, *_) = photos_of(work / f"{megapixels}mp", 3, side)
        spent = []
        for _ in range(5):
            before = time.process_time()
            pixels = load_picture(file).pixels
            spent.append(1000 * (time.process_time() - before))
        rows[str(megapixels)] = {
            "megapixels": pixels.shape[0] * pixels.shape[1] / 1e6,
            "decode_cpu_ms": median(spent),
            "bytes": file.stat().st_size,
        }
    return rows


def weights_megabytes(segmenter: FewShotSegmenter) -> float:
    """All that a worker holds of weights: as they were loaded, and with norms folded; each tensor once."""
    engine: Any = segmenter.engine
    tensors = [t for m in (engine.model, engine.network) for t in (*m.parameters(), *m.buffers())]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values()) / 2**20


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--side", type=int, default=1155)
    parser.add_argument("--part-size", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--weights", default="iir-lite0")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.pictures < 4 * max(options.workers) * options.part_size:
        parser.error("--pictures must be at least 4 * workers * part size, so that some parts are left to measure")
    import ray

    segmenter = FewShotSegmenter(options.weights, device="cpu", threads=1)
    job = next(job for job in read_jobs() if job.name == "eye")
    segmenter.add_support(job.support, job.support_mask)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        photos = photos_of(work / "photos", options.pictures, options.side)
        segmenter.predict(photos[0])
        plainly = partial(in_rows, photos, segmenter)
        load = os.getloadavg()[0]
        figures: dict[str, Any] = {"plain": [timed(plainly, len(photos))], "ray": []}
        folder_of = {"segmenter": segmenter, "formats": ["masks"]}
        figures["segment_folder"] = timed(lambda: segment_folder(photos, work / "masks", **folder_of), len(photos))
        figures["plain_at_once"] = [at_once(photos, segmenter, workers) for workers in options.workers]
        ray.init(
            address="local",
            num_cpus=max(options.workers),
            include_dashboard=False,
            object_store_memory=150 << 20,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        for workers in options.workers:
            figures["ray"].append(by_ray(photos, segmenter, workers, work, options.part_size))
        for by_workers, plain in zip(figures["ray"], figures["plain_at_once"], strict=True):
            by_workers["of_plain_at_once"] = by_workers["pictures_a_second"] / plain["pictures_a_second"]
        ray.shutdown()
        figures["plain"].append(timed(plainly, len(photos)))
        figures["decoding"] = decoding(work)
    figures.update(
        pictures=len(photos),
        weights=options.weights,
        weights_mb=weights_megabytes(segmenter),
        cores=os.cpu_count(),
        processor=platform.machine(),
        load_at_start=load,
        load_at_end=os.getloadavg()[0],
    )
    text = json.dumps(figures, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
