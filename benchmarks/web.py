"""How long the page waits: from a stroke to the new mask of the shown picture, and until what is on screen is masked.

A stroke that corrects a mask is spread over it at once, and then taught: the network's mask of the picture follows.

    python benchmarks/web.py [--pictures 200] [--side 1600] [--strokes 40] [--threads 2]

Pictures are the demo's queries, enlarged and turned so that all differ, as JPEGs of ``--side`` pixels. Requests go to
the application itself, without a network. Beside the time on the clock stands that of the processor, which other
programs on the machine change less.
"""

from __future__ import annotations

import argparse
import base64
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.web.project.opening import opened_desk
from iir_sdk.web.server.app import create_app
from iir_sdk.web.server.door import Door

ON_SCREEN = 24


def make_pictures(folder: Path, count: int, side: int) -> None:
    queries = [Image.open(job.query).convert("RGB") for job in read_jobs()]
    rng = random.Random(0)
    for i in range(count):
        image = queries[i % len(queries)].rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC)
        scale = side / max(image.size)
        image.resize((round(image.width * scale), round(image.height * scale))).save(folder / f"{i:05}.jpg", quality=90)


class Timed:
    """Milliseconds on the clock, and of the processor, of what was done."""

    def __init__(self) -> None:
        self.clock: list[float] = []
        self.processor: list[float] = []

    def __call__(self, call: Any) -> Any:
        clock, processor = time.perf_counter(), time.process_time()
        answer = call()
        self.clock.append(1000 * (time.perf_counter() - clock))
        self.processor.append(1000 * (time.process_time() - processor))
        return answer

    def __str__(self) -> str:
        parts = []
        for name, values in (("clock", self.clock), ("processor", self.processor)):
            median, high = np.percentile(values, (50, 95))
            parts.append(f"{name}: median {median:.0f} ms, 95th percentile {high:.0f} ms")
        return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--side", type=int, default=1600)
    parser.add_argument("--strokes", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        photos = Path(place) / "photos"
        photos.mkdir()
        make_pictures(photos, chosen.pictures, chosen.side)
        desk = opened_desk(FewShotSegmenter(threads=chosen.threads).engine, photos)
        try:
            measure(TestClient(create_app(desk, Door()), base_url="http://127.0.0.1"), chosen)
        finally:
            desk.close()


def measure(http: TestClient, chosen: argparse.Namespace) -> None:
    records = http.get("/api/pictures?order=name&limit=10000").json()["pictures"]
    ids = [record["id"] for record in records]
    visible = ids[:ON_SCREEN]
    http.post("/api/visible", json={"ids": visible})
    http.post("/api/labels", json={"name": "thing"})
    jobs = read_jobs()
    png = base64.b64encode((jobs[0].folder / f"{jobs[0].name}_query_mask.png").read_bytes()).decode()
    wait(lambda: http.get("/api/project").json(), "everything that fits is read", chosen.pictures)
    http.post(f"/api/pictures/{ids[0]}/strokes", json={"label": "thing", "kind": "mask", "png": png})
    rng, stroke, taught, screen = random.Random(1), Timed(), Timed(), Timed()
    for i in range(chosen.strokes):
        # In the midst of the work that the last one made.
        time.sleep(rng.uniform(0.05, 0.6))
        picture = visible[i % 6]
        x, y = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8)
        said = {"label": "thing", "kind": rng.choice(["object", "background"]), "radius": 0.01}
        said["points"] = [[x + 0.002 * k, y + 0.001 * k] for k in range(40)]

        def corrected(picture: str = picture, said: dict[str, Any] = said) -> int:
            version = http.post(f"/api/pictures/{picture}/strokes", json=said).json()["version"]
            assert http.get(f"/api/pictures/{picture}/mask?size=full").status_code == 200
            return int(version)

        version = stroke(corrected)
        taught(lambda picture=picture, version=version: until_predicted(http, picture, version))
        if i % 4 == 3:
            screen(lambda version=version: until_masked(http, visible, version))
    print(f"stroke to the shown picture's new mask, {len(stroke.clock)} strokes: {stroke}")
    print(f"from there until the network's own mask of it: {taught}")
    print(f"{ON_SCREEN} thumbnails on screen, {len(screen.clock)} times: {screen}")
    whole = Timed()
    whole(lambda: wait(lambda: http.get("/api/project").json(), "all are masked", chosen.pictures))
    print(f"all others behind them: {whole.clock[0] / 1000:.1f} s for {chosen.pictures} pictures")


def until_predicted(http: TestClient, picture: str, version: int) -> None:
    while http.get(f"/api/pictures/{picture}").json()["version"] < version:
        time.sleep(0.01)


def until_masked(http: TestClient, visible: list[str], version: int) -> None:
    while True:
        records = http.get("/api/pictures?order=name&limit=64").json()["pictures"][: len(visible)]
        if all(record["version"] is not None and record["version"] >= version for record in records):
            break
        time.sleep(0.02)
    for picture in visible:
        http.get(f"/api/pictures/{picture}/mask?size=thumb")


def wait(project: Any, what: str, count: int) -> None:
    """Until nothing changes any more."""
    start, last = time.perf_counter(), None
    while True:
        progress = project()["progress"]
        now = (progress["done"], time.process_time())
        if progress["done"] == progress["total"] or (last and now[0] == last[0] and now[1] - last[1] < 0.05):
            return
        last = now
        if time.perf_counter() - start > 600:
            raise SystemExit(f"waited ten minutes until {what}: {progress}")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
