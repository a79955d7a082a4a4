"""A page to look results over: overlays with their numbers, what needs a look first; one file, without a server."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.files import write_atomically
from iir_sdk.results.painting import COLOURS, painted
from iir_sdk.results.segmentation import Segmentation
from iir_sdk.segmenting.journal import Row

THUMBNAIL_SIDE = 360

MOST_SHOWN = 2000
"""Pictures on one page, about 40 MB; those that need a look most."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --page: #f6f6f4; --card: #ffffff; --text: #1c1c1a; --faint: #5f5f5a;
  --line: #d9d9d4; --error: #a8071a; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #161618; --card: #232326; --text: #ececea; --faint: #a5a5a0;
  --line: #3a3a3e; --error: #ff7875; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; padding: 1rem; background: var(--page); color: var(--text); font: 15px/1.45 system-ui, sans-serif; }}
h1 {{ font-size: 1.25rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }}
header p {{ margin: 0 0 1rem; color: var(--faint); }}
main {{ display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }}
article {{ background: var(--card); border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }}
article img {{ display: block; width: 100%; height: 14rem; object-fit: contain; background: var(--page); }}
article h2 {{ font-size: .9rem; margin: .5rem .6rem .25rem; overflow-wrap: anywhere; }}
article h2 a {{ color: inherit; }}
table {{ width: calc(100% - 1.2rem); margin: 0 .6rem .6rem; border-collapse: collapse; font-size: .85rem; }}
th {{ text-align: left; font-weight: 400; color: var(--faint); }}
td, th {{ padding: .1rem 0; vertical-align: top; overflow-wrap: anywhere; }}
td + td, th + th {{ padding-left: .6rem; width: 1%; text-align: right; white-space: nowrap; }}
td + td {{ font-variant-numeric: tabular-nums; }}
.dot {{ display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .4em; }}
.error {{ color: var(--error); margin: 0 .6rem .6rem; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<header><h1>{title}</h1><p>{summary}</p></header>
<main>
{cards}
</main>
</body>
</html>
"""


def thumbnail(result: Segmentation) -> bytes:
    """A small overlay, a JPEG."""
    height, width = result.label_map.shape
    scale = min(1, THUMBNAIL_SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    rows, columns = (_spread(n, full) for n, full in zip(size, (height, width), strict=True))
    doubled = [_spread(2 * n, full) for n, full in zip(size, (height, width), strict=True)]
    # Four pixels of a large picture for each: as smooth, and faster than all of them.
    small = Image.fromarray(result.image[doubled[0]][:, doubled[1]]).reduce(2)
    content = io.BytesIO()
    painted(np.asarray(small), result.label_map[rows[:, None], columns], 0.45).save(content, "JPEG", quality=82)
    return content.getvalue()


def _spread(count: int, full: int) -> NDArray[np.intp]:
    """So many indices of ``full``, evenly spread."""
    return np.arange(count) * full // count


def write_review(path: Path, rows: Sequence[Row], thumbnails: Mapping[str, Path], labels: Sequence[str]) -> Path:
    """Write the page.

    Args:
        path: the file.
        rows: of all pictures, what needs a look first.
        thumbnails: JPEGs by the rows' file.
        labels: in the order of their colours.

    Raises:
        OutputError: it cannot be written.
    """
    by_file: dict[str, list[Row]] = {}
    for row in rows:
        by_file.setdefault(row.file, []).append(row)
    colours = {label: f"rgb{COLOURS[i % len(COLOURS)]}" for i, label in enumerate(labels)}
    shown = list(by_file.items())[:MOST_SHOWN]
    cards = "\n".join(_card(file, of_file, thumbnails.get(file), colours) for file, of_file in shown)
    errors = sum(row.error != "" for row in rows)
    summary = f"{len(by_file)} pictures, {errors} with errors; least certain first."
    if len(shown) < len(by_file):
        summary += f" The first {len(shown)} are shown."
    page = _PAGE.format(title=_text(f"Segmented: {', '.join(labels)}"), summary=_text(summary), cards=cards)
    return write_atomically(path, lambda beside: beside.write_text(page, encoding="utf-8"))


def _card(file: str, rows: Sequence[Row], thumbnail_file: Path | None, colours: Mapping[str, str]) -> str:
    picture = ""
    if thumbnail_file is not None:
        with suppress(OSError):
            data = base64.b64encode(thumbnail_file.read_bytes()).decode("ascii")
            picture = f'<img loading="lazy" alt="{_text(file)}" src="data:image/jpeg;base64,{data}">'
    with suppress(ValueError, OSError):
        file_link = f'<a href="{_text(Path(file).absolute().as_uri())}">{_text(file)}</a>'
        return f"<article>{picture}<h2>{file_link}</h2>{_numbers(rows, colours)}</article>"
    return f"<article>{picture}<h2>{_text(file)}</h2>{_numbers(rows, colours)}</article>"


def _numbers(rows: Sequence[Row], colours: Mapping[str, str]) -> str:
    if errors := [row.error for row in rows if row.error]:
        return f'<p class="error">{_text(errors[0])}</p>'
    lines = (
        f'<tr><td><span class="dot" style="background:{colours.get(row.label, "gray")}"></span>{_text(row.label)}</td>'
        f"<td>{row.score:.2f}</td><td>{row.confidence:.2f}</td><td>{row.area_share:.1%}</td></tr>"
        for row in rows
    )
    head = "<tr><th>label</th><th>score</th><th>confidence</th><th>area</th></tr>"
    return f"<table>{head}{''.join(lines)}</table>"


def _text(text: str) -> str:
    """Escaped; bytes of names that are no UTF-8 as question marks."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"), quote=True)
