"""``iir-sdk weights``: list, describe, download, verify and publish checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from iir_sdk.cli.options import PATH

if TYPE_CHECKING:
    from iir_sdk.weights.checkpoint_file import Checkpoint
    from iir_sdk.weights.entry import WeightsEntry

_CACHE_DIR = click.option("--cache-dir", type=PATH, help="Folder of the Hub's cache; default: its usual one.")
_TOKEN = click.option("--token", help="Hub access token; default: the one that was logged in with.")


@click.group()
def weights() -> None:
    """Checkpoints: what there is, where it comes from, whether it is sound."""


@weights.command("list")
def list_command() -> None:
    """Print the checkpoints that this version knows."""
    from iir_sdk.weights.manifest import known_weights, list_weights

    click.echo(f"{'name':14} {'where':22} {'size':>9} {'parameters':>11}  licence")
    for name in list_weights():
        entry = known_weights()[name]
        click.echo(
            f"{name:14} {_where(entry):22} {entry.size / 1e6:6.1f} MB {entry.parameters / 1e6:9.1f} M  {entry.license}"
        )


@weights.command()
@click.argument("name")
def info(name: str) -> None:
    """Print what the manifest says of checkpoint NAME."""
    from iir_sdk.weights.manifest import weights_info

    entry = weights_info(name)
    note = f" ({entry.license_note})" if entry.license_note else ""
    rows = {
        "name": entry.name,
        "": entry.description,
        "where": _where(entry),
        "file": f"{entry.size:,} bytes, sha256 {entry.sha256}",
        "network": f"{entry.parameters:,} parameters on {entry.model.backbone}, decoder of width {entry.model.width}",
        "input": f"query {entry.preprocessing.size} px, support {entry.preprocessing.support_size} px",
        "licence": f"{entry.license}{note}",
        "trained on": ", ".join(entry.training_data),
        "needs": f"iir_sdk {entry.min_sdk_version} or newer",
    }
    for title, value in rows.items():
        click.echo(f"{title:11} {value}")
    for metric in entry.metrics:
        how = metric.protocol
        click.echo(
            f"\n{metric.title}: mIoU {100 * metric.mean_miou:.1f} ({how.shots}-shot, {how.episodes} episodes a set, "
            f"seeds {', '.join(map(str, how.seeds))}, at {how.scored_at}; checkpoint {metric.sha256[:12]})"
        )
        for scores in metric.sets:
            click.echo(f"  {scores.name:20} mIoU {100 * scores.miou:5.1f}   FB-IoU {100 * scores.fb_iou:5.1f}")


@weights.command()
@click.argument("name")
@click.option("--revision", help="Branch, tag or commit; default: the pinned commit.")
@click.option("--force", is_flag=True, help="Fetch again what the cache holds.")
@_CACHE_DIR
@_TOKEN
def download(name: str, revision: str | None, force: bool, cache_dir: Path | None, token: str | None) -> None:
    """Put checkpoint NAME, or repository OWNER/NAME, into the Hub's cache and verify it there."""
    from iir_sdk.weights.hub import HubOptions
    from iir_sdk.weights.resolve import download_checkpoint

    _print_checks(download_checkpoint(name, HubOptions(revision, cache_dir, token, force_download=force)))


@weights.command()
@click.argument("names", nargs=-1)
@click.option("--revision", help="Branch, tag or commit of OWNER/NAME; default: the pinned commit, or main.")
@_CACHE_DIR
def verify(names: tuple[str, ...], revision: str | None, cache_dir: Path | None) -> None:
    """Check checkpoints, by name, file, folder or OWNER/NAME, without asking the network.

    Without names: those that are embedded, and those of the manifest that were downloaded.
    """
    from iir_sdk.errors import WeightsNotFoundError
    from iir_sdk.weights.hub import HubOptions
    from iir_sdk.weights.manifest import known_weights, list_weights
    from iir_sdk.weights.resolve import load_checkpoint

    options = HubOptions(revision, cache_dir, local_files_only=True)
    for name in names or list_weights():
        try:
            _print_checks(load_checkpoint(name, options))
        except WeightsNotFoundError:
            if names or known_weights()[name].embedded:
                raise
            click.echo(f"{name}: not downloaded")


@weights.command()
@click.argument("source")
@click.argument("repo_id")
@click.option("--name", help="Of the checkpoint; default: the one it has.")
@click.option("--description", help="One line; default: the one it has.")
@click.option("--license", "license_id", help="SPDX identifier; default: the one it has.")
@click.option("--data", multiple=True, help="A training set; repeat. Default: those it names.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--manifest", type=PATH, help="Manifest to write, begun if missing; default: the checkout's.")
@_TOKEN
def publish(
    source: str,
    repo_id: str,
    name: str | None,
    description: str | None,
    license_id: str | None,
    data: tuple[str, ...],
    private: bool,
    manifest: Path | None,
    token: str | None,
) -> None:
    """Upload SOURCE (name, file or folder) to REPO_ID, fetch it back, and pin its commit in the manifest."""
    from dataclasses import replace

    from iir_sdk.weights.manifest import manifest_to_edit
    from iir_sdk.weights.resolve import load_checkpoint
    from iir_sdk.weights.saving import described, publish_and_pin

    path = manifest or manifest_to_edit()
    checkpoint = load_checkpoint(source)
    entry = described(checkpoint.entry, name, description, license_id, data or None)
    pinned = publish_and_pin(replace(checkpoint, entry=entry), repo_id, path, token=token, private=private or None)
    click.echo(f"{pinned.name}: {pinned.repo_id} at {pinned.revision}")
    click.echo(f"{pinned.size:,} bytes, sha256 {pinned.sha256}, fetched back and verified; pinned in {path}")


def _where(entry: WeightsEntry) -> str:
    places = ["embedded"] * entry.embedded + ["Hub"] * entry.published
    return ", ".join(places) or "not published yet"


def _print_checks(checkpoint: Checkpoint) -> None:
    click.echo(f"{checkpoint.name}: {checkpoint.file}")
    for check in checkpoint.checks:
        click.echo(f"  ok  {check.name:14} {check.finding}")
