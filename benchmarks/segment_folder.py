"""Pictures a second of ``segment_folder`` against a bare loop of ``predict``, and against that loop with its saving.

python benchmarks/segment_folder.py --pictures 40 --rounds 3 --threads 2
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from iir_sdk import FewShotSegmenter, segment_folder
from iir_sdk.demo.job import read_jobs


def photos_of(folder: Path, count: int, side: int) -> list[Path]:
    """Copies of the demo's queries, enlarged to photos of so many pixels a side."""
    from PIL import Image

    folder.mkdir()
    for i in range(count):
        jobs = read_jobs()
        with Image.open(jobs[i % len(jobs)].query) as image:
            scale = side / max(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            image.resize(size).save(folder / f"{i:04}.jpg", quality=92)
    return sorted(folder.iterdir())


def ways_of(segmenter: FewShotSegmenter, photos: list[Path], work: Path) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""

    def save_all() -> None:
        for photo in photos:
            result = segmenter.predict(photo)
            result.save(work / f"{photo.stem}.png")
            result.save(work / f"{photo.stem}_overlay.jpg", what="overlay")

    def folder(**settings: object) -> None:
        shutil.rmtree(work / "out", ignore_errors=True)
        segment_folder(photos, work / "out", segmenter=segmenter, **settings)  # type: ignore[arg-type]

    return {
        "predict, masks made": lambda: [segmenter.predict(photo).mask for photo in photos],
        "predict, mask and overlay saved": save_all,
        "segment_folder, masks": lambda: folder(formats=["masks"]),
        "segment_folder, masks and overlays": folder,
    }


def main() -> None:
    """Print medians of interleaved rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--side", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    segmenter = FewShotSegmenter(device="cpu", threads=arguments.threads)
    job = read_jobs()[0]
    segmenter.add_support(job.support, job.support_mask)
    with tempfile.TemporaryDirectory() as work:
        photos = photos_of(Path(work) / "photos", arguments.pictures, arguments.side)
        ways = ways_of(segmenter, photos, Path(work))
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                start = perf_counter()
                way()
                rates[name].append(len(photos) / (perf_counter() - start))
    bare = median(rates["predict, masks made"])
    for name, of_way in rates.items():
        print(f"{name:36} {median(of_way):6.2f} pictures/s   {median(of_way) / bare:5.2f} of the bare loop")


if __name__ == "__main__":
    main()
