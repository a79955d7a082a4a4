"""From measured rows to the bars, a Markdown table and a plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rows import RUNTIMES

SETTINGS = ("predict, bf16", "predict, torch.compile", *(f"predict, {name}" for name in RUNTIMES))


@dataclass(frozen=True)
class Bar:
    """What must not be exceeded, or with ``at_least`` must be reached."""

    title: str
    value: float
    limit: float
    unit: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def line(self) -> str:
        """A row of the table."""
        unit = f" {self.unit}" if self.unit else ""
        limit = f"{'>=' if self.at_least else '<='} {self.limit:g}{unit}"
        return f"| {self.title} | {self.value:.2f}{unit} | {limit} | {'met' if self.met else 'not met'} |"


def bars(document: Mapping[str, Any]) -> list[Bar]:
    """What must hold on a CPU with two threads."""
    ms, seconds, megabytes = document["milliseconds"], document["seconds"], document["kept_mb"]
    predict = ms["predict"]
    best = min((name for name in SETTINGS if name in ms), key=lambda name: ms[name])
    listed = [
        Bar("predict / bare backbone", predict / ms["bare backbone"], 1.35),
        Bar("predict / uncached", predict / ms["uncached"], 0.55),
        Bar("predict, sharpened / predict", ms["predict, sharpened"] / predict, 1.3),
        Bar("50 shots / 1 shot", ms["predict, 50 shots"] / predict, 1.25),
        Bar("20 labels / 1 label", ms["predict, 20 labels"] / predict, 3),
        Bar(f"best setting ({best.removeprefix('predict, ')}) / the default", ms[best] / predict, 0.5),
        Bar(
            f"best setting ({best.removeprefix('predict, ')}) / as loaded, without layout and folding",
            ms[best] / ms["predict, as loaded"],
            0.5,
        ),
        Bar("batch of 32, per picture / 1", ms["batch of 32"] / 32 / predict, 0.7),
    ]
    for name in RUNTIMES:
        if f"predict, {name}" in ms:
            one, many = ms[f"predict, {name}"], ms[f"batch of 32, {name}"] / 32
            listed.append(Bar(f"batch of 32, per picture / 1, both {name}", many / one, 0.7))
    if "SegGPT (ViT-L)" in ms:
        listed.append(Bar("SegGPT (ViT-L) / predict", ms["SegGPT (ViT-L)"] / predict, 50, at_least=True))
    listed += [
        Bar("cached support, memory", megabytes[0], 1, "MB"),
        Bar("cached support, disk", megabytes[1], 1, "MB"),
        Bar("import iir_sdk, beyond python's start", seconds["import iir_sdk"] - seconds["python"], 0.15, "s"),
        Bar("iir-sdk --help", seconds["iir-sdk --help"], 0.3, "s"),
        Bar("cold start / import torch, timm", seconds["cold start"] / seconds["import torch, timm"], 1.6),
    ]
    if document["growth_mb"] is not None:
        listed.append(Bar(f"memory growth, {document['predictions']} predictions", document["growth_mb"], 20, "MB"))
    return listed


def markdown(document: Mapping[str, Any]) -> str:
    """The bars, and every row below."""
    lines = [document["machine"], "", "| what | measured | bar | |", "|---|---|---|---|"]
    lines += [bar.line() for bar in bars(document)]
    lines += ["", "| row | ms | / bare backbone |", "|---|---|---|"]
    bare = document["milliseconds"]["bare backbone"]
    lines += [f"| {name} | {ms:.1f} | {ms / bare:.2f} |" for name, ms in document["milliseconds"].items()]
    lines += ["", "| process | s | peak MB |", "|---|---|---|"]
    for name, seconds in document["seconds"].items():
        peak = document["peak_mb"].get(name)
        lines.append(f"| {name} | {seconds:.2f} | {'' if peak is None else f'{peak:.0f}'} |")
    lines += [f"\nLeft out here: {reason}." for reason in document["left_out"]]
    return "\n".join(lines) + "\n"


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Bars of every way to predict one picture, and how time grows with shots and labels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ms = document["milliseconds"]
    ways = {
        n: v for n, v in ms.items() if n in ("bare backbone", "predict", "predict, as loaded", "uncached", *SETTINGS)
    }
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.2), width_ratios=(3, 2))
    left.barh(list(ways), list(ways.values()), color=["0.6" if n == "bare backbone" else "C0" for n in ways])
    left.invert_yaxis()
    left.set_xlabel("milliseconds a picture")
    for kind, counts in (("shots", (5, 20, 50)), ("labels", (5, 20))):
        times = [ms["predict"], *(ms[f"predict, {count} {kind}"] for count in counts)]
        right.plot([1, *counts], [t / ms["predict"] for t in times], marker="o", label=kind)
    right.set_xlabel("how many")
    right.set_ylabel("time / one")
    right.set_ylim(bottom=0)
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
