"""The same on a GPU: ``python benchmarks/gpu.py --out benchmarks/results``; no figure of it is made without a card."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from interleaved import Row, medians
from rows import Scene

from iir_sdk import FewShotSegmenter, __version__
from iir_sdk.model.backbone import Taps

DTYPES = ("float32", "bfloat16")
BATCHES = (1, 16, 64)


class Network:
    """The network on pictures that are on the device already: what the card does, without the pictures' way to it."""

    def __init__(self, scene: Scene, dtype: str, device: str, *, compiled: bool) -> None:
        self.segmenter: FewShotSegmenter = scene.segmenter(device=device, dtype=dtype)
        engine = self.segmenter.torch_engine
        tasks = [self.segmenter.task([s.state for s in self.segmenter.supports])]
        self.engine, self.state = engine, engine.prepare(tasks)[0].state
        # Captured as CUDA graphs, since small steps cost more to launch than to run.
        shape: Callable[[Any], Any] = (
            (lambda f: torch.compile(f, mode="reduce-overhead", dynamic=False)) if compiled else (lambda f: f)
        )
        self._backbone, self._decode = shape(engine.network.backbone), shape(self._logits)

    def _logits(self, *taps: torch.Tensor) -> torch.Tensor:
        return self.engine.network.decode(Taps(*taps), self.state).logits

    def images(self, batch: int) -> torch.Tensor:
        """So many pictures ``(B, 3, size, size)`` on the device."""
        side = self.engine.identity.preprocessing.size
        images = torch.rand(batch, 3, side, side, device=self.engine.device) * 2 - 1
        return images.contiguous(memory_format=torch.channels_last)

    def bare(self, images: torch.Tensor) -> object:
        """The backbone alone, waited for."""
        with torch.inference_mode(), self.engine.autocast():
            taps = self._backbone(images)
        self.wait()
        return taps

    def whole(self, images: torch.Tensor) -> object:
        """The backbone and the decoder, waited for."""
        with torch.inference_mode(), self.engine.autocast():
            # Cloned, since a captured graph writes its outcome to the same place each time.
            logits = self._decode(*(tap.clone() for tap in self._backbone(images)))
        self.wait()
        return logits

    def wait(self) -> None:
        """For the device."""
        if self.engine.device.type == "cuda":
            torch.cuda.synchronize(self.engine.device)


def measure(scene: Scene, device: str, repeats: int, *, compiled: bool) -> list[dict[str, Any]]:
    """Milliseconds, pictures a second, share of the backbone's throughput and peak memory, by dtype and batch."""
    measured = []
    for dtype in DTYPES:
        for way in (False, True) if compiled else (False,):
            network = Network(scene, dtype, device, compiled=way)
            for batch in BATCHES:
                images = network.images(batch)
                queries = [scene.query] * batch
                rows: dict[str, Row] = {
                    "backbone": lambda n=network, x=images: n.bare(x),  # type: ignore[misc]
                    "network": lambda n=network, x=images: n.whole(x),  # type: ignore[misc]
                }
                if not way:
                    rows["predict_many"] = lambda n=network, q=queries: list(
                        n.segmenter.predict_many(q, batch_size=len(q))
                    )
                _reset_peak(device)
                ms = medians(rows, repeats, warmup=5)
                measured.append(
                    {
                        "dtype": dtype,
                        "how": "CUDA graphs" if way else "eager",
                        "batch": batch,
                        "milliseconds": ms,
                        "pictures_per_second": {name: 1000 * batch / value for name, value in ms.items()},
                        "share_of_backbone": ms["backbone"] / ms["network"],
                        "peak_mb": _peak(device),
                    }
                )
    return measured


def markdown(name: str, rows: list[dict[str, Any]]) -> str:
    """A table, one line a setting."""
    lines = [
        f"{name}, torch {torch.__version__}, iir_sdk {__version__}",
        "",
        "| dtype | how | batch | backbone ms | network ms | pictures/s | / backbone's | peak MB | predict_many ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ms, whole = row["milliseconds"], row["milliseconds"].get("predict_many")
        lines.append(
            f"| {row['dtype']} | {row['how']} | {row['batch']} | {ms['backbone']:.2f} | {ms['network']:.2f} "
            f"| {row['pictures_per_second']['network']:.0f} | {row['share_of_backbone']:.0%} | {row['peak_mb']:.0f} "
            f"| {'' if whole is None else f'{whole:.1f}'} |"
        )
    return "\n".join(lines) + "\n"


def _reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> float:
    return torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0.0


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of gpu.json and gpu.md.")
@click.option("--repeats", default=30, show_default=True)
@click.option("--device", default="cuda", show_default=True)
@click.option("--compile/--no-compile", "compiled", default=True, help="Also with CUDA graphs, by torch.compile.")
def main(out: Path, repeats: int, device: str, compiled: bool) -> None:
    """Run all rows, print the table and write it."""
    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("no CUDA device is here; this benchmark measures one.")
    rows = measure(Scene(), device, repeats, compiled=compiled)
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.json").write_text(json.dumps({"device": name, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    (out / "gpu.md").write_text(markdown(name, rows), encoding="utf-8")
    click.echo(markdown(name, rows))


if __name__ == "__main__":
    main()
