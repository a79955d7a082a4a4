"""Fuzzes what reads weights: ``python -m tests.fuzz_weights EXAMPLES TARGET...``; prints a line of JSON for each.

Each input must load or raise an ``IirError``; anything else fails with the input that did it.
"""

from __future__ import annotations

import collections
import copy
import gc
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from iir_sdk.errors import IirError
from iir_sdk.torchvision_import import ensure_torchvision
from iir_sdk.weights.checkpoint_file import FORMAT, read_checkpoint
from iir_sdk.weights.entry import WeightsEntry
from iir_sdk.weights.manifest import manifest_path, read_json, read_manifest
from iir_sdk.weights.resolve import load_checkpoint
from iir_sdk.weights.saving import save_folder
from tests.conftest import save_tiny

ensure_torchvision()
import timm  # noqa: E402

FEW = 60
SCRATCH = Path(tempfile.mkdtemp(prefix="iir_sdk-fuzz-"))
DTYPES = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F4", "C64", "I64", "I32", "U8", "U64", "BOOL", "E8M0", ""]

numbers = st.one_of(st.integers(), st.integers(0, 5000), st.integers(2**31 - 2, 2**65), st.floats(), st.just(10**400))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=20), st.sampled_from(timm.list_models())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


# Inputs are drawn as small lists of edits and applied when they are run: the library that draws keeps what it drew, and
# whole files of it would hide what reading one takes.

json_edits = st.lists(
    st.tuples(
        st.integers(0, 10**6),
        st.sampled_from(["exchange", "exchange", "special", "remove", "add"]),
        values,
        st.one_of(st.sampled_from(DTYPES), st.lists(st.integers(-1, 2**63), max_size=5), numbers),
        st.text(max_size=12),
    ),
    max_size=3,
)
byte_edits = st.tuples(
    st.lists(
        st.tuples(
            st.sampled_from([8, "near", "near", "far"]), st.integers(0, 10**9), st.integers(0, 3), st.binary(max_size=4)
        ),
        max_size=6,
    ),
    st.one_of(st.none(), st.none(), st.none(), st.integers(0, 10**9)),
)


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON value something can be exchanged."""
    found = [prefix]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += paths(inner, (*prefix, key))
    return found


def edited_json(original: Any, edits: list[tuple[int, str, Any, Any, str]]) -> Any:
    """A JSON value with some places exchanged, removed or added."""
    document = copy.deepcopy(original)
    for number, action, value, special, name in edits:
        places = paths(document)[1:]
        if not places:
            break
        *outer, last = places[number % len(places)]
        holder = document
        for key in outer:
            holder = holder[key]
        if action == "remove":
            del holder[last]
        elif action == "add" and isinstance(holder, dict):
            holder[name] = value
        else:
            holder[last] = special if action == "special" else value
    return document


def edited_bytes(original: bytes, edits: tuple[list[tuple[Any, int, int, bytes]], int | None], near: int) -> bytes:
    """Bytes with some exchanged, mostly among the first ``near``, perhaps cut."""
    content = bytearray(original)
    changes, cut = edits
    for where, at, removed, added in changes:
        reach = {8: 8, "near": near, "far": len(content)}[where]
        start = at % max(1, min(reach, len(content)))
        content[start : start + removed] = added
    if cut is not None:
        del content[cut % (len(content) + 1) :]
    return bytes(content)


def _tiny() -> bytes:
    save_tiny(SCRATCH / "tiny.safetensors", seed=0)
    return (SCRATCH / "tiny.safetensors").read_bytes()


TINY = _tiny()
HEADER_END = 8 + int.from_bytes(TINY[:8], "little")
HEADER = json.loads(TINY[8:HEADER_END])
CONFIG = json.loads(HEADER["__metadata__"][FORMAT])
MANIFEST = json.loads(manifest_path().read_text(encoding="utf-8"))
FOLDER = SCRATCH / "folder"
STATED = save_folder(read_checkpoint(SCRATCH / "tiny.safetensors"), FOLDER).to_config()


def with_header(header: Any) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + TINY[HEADER_END:]


def with_config(config: Any) -> bytes:
    return with_header({**HEADER, "__metadata__": {FORMAT: json.dumps(config)}})


def load_bytes(content: bytes) -> None:
    file = SCRATCH / "fuzzed.safetensors"
    file.write_bytes(content)
    read_checkpoint(file)


def load_manifest(content: bytes) -> None:
    file = SCRATCH / "manifest.json"
    file.write_bytes(content)
    read_manifest(file)


def load_folder(content: bytes) -> None:
    (FOLDER / "config.json").write_bytes(content)
    load_checkpoint(FOLDER)


def parse_entry(entry: Any) -> None:
    WeightsEntry.from_dict(entry)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


STATED_BYTES, MANIFEST_BYTES = as_json(STATED), manifest_path().read_bytes()
TARGETS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]] = {
    "file bytes": (byte_edits, lambda e: load_bytes(edited_bytes(TINY, e, HEADER_END))),
    "file header": (json_edits, lambda e: load_bytes(with_header(edited_json(HEADER, e)))),
    "file config": (json_edits, lambda e: load_bytes(with_config(edited_json(CONFIG, e)))),
    "config.json": (json_edits, lambda e: load_folder(as_json(edited_json(STATED, e)))),
    "config.json bytes": (byte_edits, lambda e: load_folder(edited_bytes(STATED_BYTES, e, 10**6))),
    "manifest": (json_edits, lambda e: load_manifest(as_json(edited_json(MANIFEST, e)))),
    "manifest bytes": (byte_edits, lambda e: load_manifest(edited_bytes(MANIFEST_BYTES, e, 10**6))),
    "any bytes as JSON": (st.binary(max_size=200), load_manifest),
    "entry": (json_edits, lambda e: parse_entry(edited_json(MANIFEST["checkpoints"][0], e))),
}


def peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fuzz(target: str, examples: int, before: int) -> dict[str, Any]:
    """Run one target; its inputs, what became of them, the slowest, and how far memory peaked above ``before``."""
    strategy, load = TARGETS[target]
    outcomes: collections.Counter[str] = collections.Counter()
    slowest = 0.0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        # The suite's few inputs are always the same ones; a long run draws new ones.
        derandomize=examples <= FEW,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(strategy)
    def run(value: Any) -> None:
        nonlocal slowest
        started = time.perf_counter()
        try:
            load(value)
            outcomes["loaded"] += 1
        except IirError as error:
            assert len(str(error)) < 2000, "a message that repeats its input"
            outcomes[type(error).__name__] += 1
        slowest = max(slowest, time.perf_counter() - started)

    run()
    return {
        "target": target,
        "inputs": outcomes.total(),
        "outcomes": dict(outcomes),
        "slowest_s": round(slowest, 2),
        "peak_growth_mb": round((peak_kb() - before) / 1024, 1),
    }


if __name__ == "__main__":
    read_json(manifest_path())
    load_bytes(TINY)
    gc.collect()
    base = peak_kb()
    for name in sys.argv[2:]:
        print(json.dumps(fuzz(name, int(sys.argv[1]), base)), flush=True)
