"""The README.md that travels with saved weights: what they are, may be used for, were trained on, and miss."""

from __future__ import annotations

from huggingface_hub import ModelCardData

from iir_sdk.weights.entry import UNSTATED, Metric, WeightsEntry

_TEMPLATE = """\
---
{front_matter}
---

# {name}

{description}

Few-shot segmentation by IIR (Inter- and Intra-image Refinement, arXiv 2507.05838): one picture with a mask, and every
other picture gets that thing masked.

## Usage

Install iir_sdk (from its repository, `pip install .`, until it is released), then:

```python
from iir_sdk import FewShotSegmenter

segmenter = FewShotSegmenter.from_pretrained("{source}")
segmenter.add_support("cat.jpg", "cat_mask.png")
result = segmenter.predict("street.jpg")
result.mask  # bool (H, W), at the query's own size
```

## The network

{parameters:,} parameters on `{backbone}` (frozen, ImageNet weights); queries are seen at {size} x {size} px.
`{filename}`: {bytes:,} bytes, sha256 `{sha256}`. Needs iir_sdk {min_sdk_version} or newer.

## Licence

{license}

## Training data

{training_data}

## Metrics

{metrics}

## Limits

- Thin, tiny, camouflaged and crowded things, and letters, are often missed or blurred: masks are made at 1/8 of the
  input's size. `iir-sdk demo --failures` shows some.
- It looks for the object in every picture; `absent_below` leaves out what `score` says is not there, not certainly.
- On things unlike its training pictures less than half of a mask is right; `confidence` says of which to expect more.
- It follows looks, not meaning: what looks like the support and is something else may be masked too.
"""


def model_card(entry: WeightsEntry, source: str) -> str:
    """The card of a checkpoint; ``source`` is what its example loads, a repository or a folder."""
    front_matter = ModelCardData(
        license="other" if entry.license == UNSTATED else entry.license.lower(),
        library_name="iir_sdk",
        pipeline_tag="image-segmentation",
        tags=["few-shot-segmentation", "image-segmentation", "arxiv:2507.05838"],
    ).to_yaml()
    return _TEMPLATE.format(
        front_matter=front_matter,
        name=entry.name,
        description=entry.description or "An IIR checkpoint.",
        source=source,
        parameters=entry.parameters,
        backbone=entry.model.backbone,
        size=entry.preprocessing.size,
        filename=entry.filename,
        bytes=entry.size,
        sha256=entry.sha256,
        min_sdk_version=entry.min_sdk_version,
        license=f"{entry.license}. {entry.license_note}".strip() if entry.license_note else f"{entry.license}.",
        training_data="\n".join(f"- {name}" for name in entry.training_data) or "Not stated.",
        metrics="\n\n".join(map(_table, entry.metrics)) or "None were stated.",
    )


def _table(metric: Metric) -> str:
    how = metric.protocol
    rows = [f"| {s.name} | {100 * s.miou:.1f} | {100 * s.fb_iou:.1f} |" for s in metric.sets]
    return "\n".join(
        [
            f"**{metric.title}**: mean mIoU {100 * metric.mean_miou:.1f}. {how.shots}-shot, {how.episodes} episodes a "
            f"set, seeds {', '.join(map(str, how.seeds))}, objects of at least {100 * how.min_share:g} % of the "
            f"picture, scored at {how.scored_at}, input {how.input_pixels} px; checkpoint `{metric.sha256[:12]}`.",
            "",
            "| set | mIoU | FB-IoU |",
            "|---|---|---|",
            *rows,
        ]
    )
