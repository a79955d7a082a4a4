"""Requests a second and their latency: ``iir-sdk serve`` against the server of one process, ``iir-sdk web``.

    python benchmarks/serving.py [--weights iir-lite0] [--replicas 2] [--requests 48] [--rounds 2] [--out FILE.json]

Both servers are started once and asked in turns, by 1, 4 and 16 clients that each send the next picture when they have
the last one's masks; four sets, the demo's queries. Beside the clock's times stands the processors' of all processes
of a server, a request, less what they use when nobody asks: other programs on the machine change that less.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import requests

from iir_sdk.demo.job import read_jobs

CLIENTS = (1, 4, 16)
SETS = 4
_STARTED = 600.0
_TICK = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def server(name: str, arguments: list[str], work: Path) -> Iterator[tuple[str, int]]:
    """Its address and process, once it answers; stopped at the end, which says how long that took."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "iir_sdk", *arguments, "--port", str(port)]
    with (work / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    address, start = f"http://127.0.0.1:{port}/v1", time.perf_counter()
    try:
        while not answers(address):
            if process.poll() is not None or time.perf_counter() - start > _STARTED:
                raise SystemExit((work / f"{name}.log").read_text())
            time.sleep(0.5)
        print(f"{name} answers after {time.perf_counter() - start:.1f} s", flush=True)
        yield address, process.pid
    finally:
        stop = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        print(f"{name} stopped within {time.perf_counter() - stop:.1f} s", flush=True)


def answers(address: str) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"{address}/health", timeout=5).status_code == 200
    return False


def processor_seconds(root: int) -> float:
    """Of a process and all that it started, as far as they live."""
    parents, used = {}, {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = place.read_text().rpartition(")")[2].split()
            pid = int(place.parent.name)
            parents[pid], used[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICK
    members = {root}
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return sum(used.get(pid, 0.0) for pid in members)


def make_sets(address: str) -> None:
    for i, job in zip(range(SETS), cycle(read_jobs()), strict=False):
        files = {"image": job.support.read_bytes(), "mask": job.support_mask.read_bytes()}
        answer = requests.post(f"{address}/supports", data={"name": f"set{i}"}, files=files, timeout=300)
        answer.raise_for_status()


def ask(address: str, clients: int, count: int) -> list[float]:
    """Seconds of each request."""
    queries = list(islice(cycle([job.query.read_bytes() for job in read_jobs()]), count))
    sessions = [requests.Session() for _ in range(clients)]

    def one(i: int) -> float:
        session = sessions.pop()
        start = time.perf_counter()
        data = {"set": f"set{i % SETS}"}
        answer = session.post(f"{address}/predict", data=data, files={"image": queries[i]}, timeout=300)
        answer.raise_for_status()
        sessions.append(session)
        return time.perf_counter() - start

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(one, range(count)))


def idle_share(pid: int, seconds: float = 20.0) -> float:
    """Of one processor, what a server that nobody asks uses."""
    before = processor_seconds(pid)
    time.sleep(seconds)
    return (processor_seconds(pid) - before) / seconds


def measured(address: str, pid: int, clients: int, count: int, idle: float) -> dict[str, float]:
    processor, start = processor_seconds(pid), time.perf_counter()
    seconds = ask(address, clients, count)
    whole = time.perf_counter() - start
    p50, p95 = np.percentile(seconds, (50, 95)) * 1000
    spent = 1000 * (processor_seconds(pid) - processor - idle * whole) / count
    return {"requests_s": count / whole, "p50_ms": float(p50), "p95_ms": float(p95), "processor_ms": spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="iir-lite0")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    engine = ["--weights", chosen.weights, "--threads", "1"]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        work = Path(place)
        (work / "photos").mkdir()
        shutil.copy(read_jobs()[0].query, work / "photos")
        plain = ["web", str(work / "photos"), "--project", str(work / "project"), "--no-open"]
        ray = ["serve", "--sets", str(work / "sets"), "--replicas", str(chosen.replicas)]
        servers = {
            "web": stack.enter_context(server("web", plain + engine, work)),
            "serve": stack.enter_context(server("serve", ray + engine, work)),
        }
        for address, _ in servers.values():
            make_sets(address)
            ask(address, 4, 8)
        idle = {name: idle_share(pid) for name, (_, pid) in servers.items()}
        for turn in range(chosen.rounds):
            for clients in CLIENTS:
                for name, (address, pid) in servers.items():
                    row = measured(address, pid, clients, chosen.requests, idle[name])
                    rows.append({"round": turn, "server": name, "clients": clients, **row})
                    print(json.dumps(rows[-1]), flush=True)
        address = servers["serve"][0].removesuffix("/v1")
        told = requests.get(f"{address}/metrics", timeout=60).text
    together = {key: float(told.split(f"iir_pictures_together_{key} ")[1].split()[0]) for key in ("sum", "count")}
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        **{name: getattr(chosen, name) for name in ("weights", "replicas", "requests", "rounds")},
        "pictures_together_mean": together["sum"] / together["count"],
        "idle_share_of_a_processor": idle,
        "ratios": ratios(rows),
        "rows": rows,
    }
    print(json.dumps(report["ratios"], indent=1))
    if chosen.out:
        chosen.out.write_text(json.dumps(report, indent=1) + "\n")


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Figures of serve by those of web: medians of the rounds' own ratios."""
    by = {(row["round"], row["server"], row["clients"]): row for row in rows}
    figures = ("requests_s", "p50_ms", "p95_ms", "processor_ms")
    turns = sorted({row["round"] for row in rows})
    return {
        f"{clients} clients": {
            figure: round(median(by[t, "serve", clients][figure] / by[t, "web", clients][figure] for t in turns), 3)
            for figure in figures
        }
        for clients in CLIENTS
    }


if __name__ == "__main__":
    main()
