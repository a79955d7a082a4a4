"""Checks what a built wheel and source archive hold."""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
import zipfile
from pathlib import Path

NEEDED = (
    "iir_sdk/__init__.py",
    "iir_sdk/py.typed",
    "iir_sdk/weights_manifest.json",
    "iir_sdk/demo/pictures/jobs.json",
    "iir_sdk/training/recipes/duo.toml",
    "iir_sdk/web/page/index.html",
    "iir_sdk/web/page/main.js",
    "iir_sdk/web/page/page.css",
)
LARGEST_WHEEL = 80_000_000


def check_wheel(path: Path) -> None:
    """The package, the manifest, the weights it names, the demo's pictures, and nothing else."""
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        missing = [n for n in NEEDED if n not in names]
        assert not missing, f"{path.name} lacks {missing}"
        stray = [n for n in names if not n.startswith("iir_sdk/") and ".dist-info/" not in n]
        assert not stray, f"{path.name} holds {stray}"
        for entry in json.loads(wheel.read("iir_sdk/weights_manifest.json"))["checkpoints"]:
            if entry["embedded"]:
                content = wheel.read(f"iir_sdk/checkpoints/{entry['name']}.safetensors")
                assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["name"]
        for job in json.loads(wheel.read("iir_sdk/demo/pictures/jobs.json")):
            for kind in ("support.jpg", "support_mask.png", "query.jpg", "query_mask.png"):
                assert f"iir_sdk/demo/pictures/{job['name']}_{kind}" in names, job["name"]
        points = next(n for n in names if n.endswith("entry_points.txt"))
        assert b"iir-sdk = iir_sdk.cli.main:main" in wheel.read(points)
        assert any(n.endswith("LICENSE") for n in names)
    assert path.stat().st_size < LARGEST_WHEEL, f"{path.name} has {path.stat().st_size:,} bytes"
    print(f"{path.name}: {len(names)} files, {path.stat().st_size:,} bytes")


def check_source(path: Path) -> None:
    """The manifest at the top, where the wheel build looks for it."""
    with tarfile.open(path) as archive:
        names = {n.split("/", 1)[1] for n in archive.getnames() if "/" in n}
    missing = [
        n
        for n in ("weights_manifest.json", "tools/manifest_in_wheel.py", "setup.cfg", "pyproject.toml", "LICENSE")
        if n not in names
    ]
    assert not missing, f"{path.name} lacks {missing}"
    print(f"{path.name}: {len(names)} files")


if __name__ == "__main__":
    for argument in map(Path, sys.argv[1:]):
        check_wheel(argument) if argument.suffix == ".whl" else check_source(argument)
