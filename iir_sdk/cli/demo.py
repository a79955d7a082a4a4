"""``iir-sdk demo``."""

from __future__ import annotations

from pathlib import Path

import click

from iir_sdk.cli.options import DEVICE, PATH, WEIGHTS


@click.command()
@click.option("--out", type=PATH, default=Path("iir_demo.png"), show_default=True)
@WEIGHTS
@click.option("--failures", is_flag=True, help="Jobs that go wrong, instead: thin, tiny, camouflaged things, letters.")
@DEVICE
def demo(out: Path, weights: str | None, failures: bool, device: str) -> None:
    """Run few-shot jobs on real pictures; write a sheet and print IoU and milliseconds."""
    from iir_sdk.cli.demo_sheet import draw_sheet, run_jobs
    from iir_sdk.demo.job import FAILURES, PICTURES, read_jobs
    from iir_sdk.pictures.save import check_picture_place, save_picture
    from iir_sdk.segmenter import FewShotSegmenter

    check_picture_place(out)
    segmenter = FewShotSegmenter(weights, device=device)
    click.echo(f"{segmenter.engine.identity.name} on {segmenter.device}\n")
    click.echo(f"{'job':12} {'IoU':>5} {'add_support':>12} {'predict':>9}")
    results = []
    for result in run_jobs(segmenter, read_jobs(FAILURES if failures else PICTURES)):
        results.append(result)
        click.echo(
            f"{result.job.name:12} {result.iou:5.2f} {result.add_support_ms:9.0f} ms {result.predict_ms:6.0f} ms"
        )
    click.echo(f"{'mean':12} {sum(r.iou for r in results) / len(results):5.2f}")
    sheet = draw_sheet(results)
    click.echo(f"\nsupport, query, prior and result side by side: {save_picture(sheet, out)}")
