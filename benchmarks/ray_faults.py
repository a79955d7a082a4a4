"""What faults cost a run by Ray: rows in, rows out, duplicates, seconds lost; workers and drivers killed with -9.

python -m benchmarks.ray_faults --pictures 40 --out faults.json

Seconds lost are those of the clock beyond an undisturbed run: a worker that starts anew, and pictures done again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.segment_folder import photos_of
from iir_sdk.demo.job import read_jobs

_RUN = (
    "import sys, json, iir_sdk.ray as r; a = json.loads(sys.argv[1]);"
    "t = r.segment(a.pop('pictures'), a.pop('out'), cluster=r.Workers(count=a.pop('workers')), **a);"
    "print(json.dumps({'segmented': t.segmented, 'present': t.present, 'failed': t.failed, 'seconds': t.seconds}))"
)


def started(photos: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    """A driver in a process of its own, with a cluster of its own."""
    job = next(job for job in read_jobs() if job.name == "eye")
    given = {
        "pictures": str(photos),
        "out": str(out),
        "workers": workers,
        "supports": [[str(job.support), str(job.support_mask)]],
        "weights": "iir-lite0",
        "part_size": 4,
        "progress": False,
    }
    command = [sys.executable, "-c", _RUN, json.dumps(given)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def worker_pids(driver: int) -> list[int]:
    """Of the driver's own cluster."""
    from benchmarks.ray_scale import descendants

    pids = []
    for pid in descendants(driver):
        with suppress(OSError):
            if b"PartWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                pids.append(pid)
    return pids


def parts_of(out: Path) -> int:
    return len(list(out.glob("part-*")))


def wait_for(condition: Callable[[], Any]) -> None:
    while not condition():
        time.sleep(0.02)


def outcome(photos: Path, out: Path) -> dict[str, int]:
    """Rows in and out, and duplicates, as the files say."""
    from pyarrow import parquet

    ids = [text for file in out.glob("*.parquet") for text in parquet.read_table(file)["id"].to_pylist()]
    counts = Counter(ids)
    wanted = {str(photo) for photo in photos.iterdir()}
    return {
        "rows_in": len(wanted),
        "rows_out": len(ids),
        "duplicates": len(ids) - len(counts),
        "missing": len(wanted - set(counts)),
    }


def undisturbed(photos: Path, out: Path, workers: int) -> dict[str, Any]:
    start = time.perf_counter()
    told = json.loads(started(photos, out, workers).communicate()[0].splitlines()[-1])
    return {**outcome(photos, out), **told, "seconds": time.perf_counter() - start}


def worker_killed(photos: Path, out: Path, workers: int) -> dict[str, Any]:
    start = time.perf_counter()
    driver = started(photos, out, workers)

    def kill() -> None:
        wait_for(lambda: driver.poll() is not None or (parts_of(out) > 1 and worker_pids(driver.pid)))
        os.kill(worker_pids(driver.pid)[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    told = json.loads(driver.communicate()[0].splitlines()[-1])
    thread.join()
    return {**outcome(photos, out), **told, "seconds": time.perf_counter() - start}


def driver_killed(photos: Path, out: Path, workers: int) -> dict[str, Any]:
    start = time.perf_counter()
    driver = started(photos, out, workers)
    wait_for(lambda: driver.poll() is not None or parts_of(out) > 1)
    driver.kill()
    driver.wait()
    time.sleep(2)
    before = outcome(photos, out)["rows_out"]
    told = json.loads(started(photos, out, workers).communicate()[0].splitlines()[-1])
    return {**outcome(photos, out), **told, "rows_before_the_kill": before, "seconds": time.perf_counter() - start}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--side", type=int, default=600)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = {"load_at_start": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        photos_of(work / "photos", options.pictures, options.side)
        (work / "photos" / "broken.jpg").write_bytes(b"no picture")
        for scenario in (undisturbed, worker_killed, driver_killed):
            figures[scenario.__name__] = scenario(work / "photos", work / scenario.__name__, options.workers)
            print(scenario.__name__, figures[scenario.__name__], flush=True)
    for name in ("worker_killed", "driver_killed"):
        figures[name]["seconds_lost"] = figures[name]["seconds"] - figures["undisturbed"]["seconds"]
    figures["load_at_end"] = os.getloadavg()[0]
    text = json.dumps(figures, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
