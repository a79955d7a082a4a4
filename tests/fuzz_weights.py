"""Fuzzes what reads weights: ``python -m tests.fuzz_weights TARGET EXAMPLES``; prints outcomes and memory as JSON.

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

SCRATCH = Path(tempfile.mkdtemp(prefix="iir_sdk-fuzz-"))
DTYPES = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F4", "C64", "I64", "I32", "U8", "U64", "BOOL", "E8M0", ""]

numbers = st.one_of(st.integers(), st.integers(0, 5000), st.integers(2**31 - 2, 2**65), st.floats(), st.just(10**400))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=20), st.sampled_from(timm.list_models())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON value something can be exchanged."""
    found = [prefix]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += paths(inner, (*prefix, key))
    return found


@st.composite
def mutated_json(draw: st.DrawFn, original: Any, special: st.SearchStrategy[Any] = values) -> Any:
    """A JSON value with up to three places exchanged, removed or added."""
    document = copy.deepcopy(original)
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(paths(document)))
        if not path:
            continue
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        action = draw(st.sampled_from(["exchange", "exchange", "special", "remove", "add"]))
        if action == "remove":
            del holder[path[-1]]
        elif action == "add" and isinstance(holder, dict):
            holder[draw(st.text(max_size=12))] = draw(values)
        else:
            holder[path[-1]] = draw(special if action == "special" else values)
    return document


@st.composite
def mutated_bytes(draw: st.DrawFn, original: bytes, interesting: int) -> bytes:
    """Bytes with some exchanged, mostly among the first ``interesting``, perhaps cut or lengthened."""
    content = bytearray(original)
    for _ in range(draw(st.integers(0, 6))):
        near = min(interesting, len(content))
        at = draw(st.integers(0, max(0, draw(st.sampled_from([7, near, near, len(content)])) - 1)))
        content[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    if draw(st.integers(0, 5)) == 0:
        del content[draw(st.integers(0, len(content))) :]
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


special_specs = st.one_of(st.sampled_from(DTYPES), st.lists(st.integers(-1, 2**63), max_size=5), numbers)
TARGETS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]] = {
    "file bytes": (mutated_bytes(TINY, HEADER_END), load_bytes),
    "file header": (mutated_json(HEADER, special_specs).map(with_header), load_bytes),
    "file config": (mutated_json(CONFIG).map(with_config), load_bytes),
    "config.json": (mutated_json(STATED).map(lambda v: json.dumps(v).encode()), load_folder),
    "config.json bytes": (mutated_bytes(json.dumps(STATED).encode(), 10**6), load_folder),
    "manifest": (mutated_json(MANIFEST).map(lambda v: json.dumps(v).encode()), load_manifest),
    "manifest bytes": (mutated_bytes(manifest_path().read_bytes(), 10**6), load_manifest),
    "any bytes as JSON": (st.binary(max_size=200), load_manifest),
    "entry": (values, parse_entry),
}


def fuzz(target: str, examples: int) -> dict[str, Any]:
    """Run one target; its inputs, what became of them, the slowest and the growth of the memory's peak."""
    strategy, load = TARGETS[target]
    outcomes: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    read_json(manifest_path())
    load_bytes(TINY)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
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
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "target": target,
        "inputs": outcomes.total(),
        "outcomes": dict(outcomes),
        "slowest_s": round(slowest, 2),
        "peak_growth_mb": round(grown / 1024, 1),
    }


if __name__ == "__main__":
    print(json.dumps(fuzz(sys.argv[1], int(sys.argv[2]))))
