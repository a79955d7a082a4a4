"""Does an engine give the masks that float32 gives? Compared on packaged pictures when first opened on a machine.

Instructions, drivers and runtimes differ in what they make of the same network in the same precision, and a mask that
is wrong looks like any other. What came of it is recorded among the Hub client's cached assets.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from huggingface_hub import cached_assets_path
from numpy.typing import NDArray

import iir_sdk
from iir_sdk.demo.job import read_jobs
from iir_sdk.engines.base import Engine
from iir_sdk.errors import IirError
from iir_sdk.files import write_text_atomically
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask
from iir_sdk.results.full_size import sigmoid

Leads = Mapping[str, NDArray[np.float32]]
"""Foreground's log-odds at the network's grid, ``(h, w)``, of each compared picture by its job's name."""

COMPARED = ("grass", "eye")
"""Jobs of the demo: much of the picture, surely found; and a small object."""

LEAST_AGREEMENT = 0.8
"""What rounding leaves is above 0.9 for the embedded weights, what a lost mask leaves below 0.5."""

_FLOOR = 0.01

_STATED_BY_LINUX = Path("/proc/cpuinfo")
_OF_X86 = ("vendor_id", "model name", "cpu family", "model", "stepping", "flags")
_OF_ARM = ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features")
# What has oneDNN, and torch, use fewer instructions, or lower precisions, than there are; the older names hold, too.
_LIMITS = (
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "ATEN_CPU_CAPABILITY",
)
# A cache that cannot be written costs once a process.
_OF_THIS_PROCESS: dict[str, float] = {}


def compared_leads(engine: Engine) -> dict[str, NDArray[np.float32]]:
    """What an engine makes of the compared pictures: of the first by its own label, of the second by both labels.

    Several labels at once take another way through a runtime than one.
    """
    leads, states = {}, []
    for job in read_jobs():
        if job.name in COMPARED:
            support = load_picture(job.support)
            states.append(engine.encode(support.pixels, load_mask(job.support_mask, support) == 1))
            outcomes, _ = engine.segment([load_picture(job.query).pixels], engine.prepare(states))
            leads[job.name] = outcomes[0].leads[-1]
    return leads


def agreement(leads: Leads, expected: Leads) -> float:
    """Least overlap of the foreground's probabilities in [0, 1]: the sum of the smaller over that of the larger.

    Unlike masks', it says little of cells that are undecided either way, as all are of an untrained network; cells
    that nobody finds anything in count as a hundredth each, so that nothing agrees with nothing. NaN gives 0.
    """
    overlaps = []
    for name, lead in expected.items():
        one, other = (sigmoid(np.array(each, np.float32)) for each in (leads[name], lead))
        smaller, larger = np.minimum(one, other).mean(), np.maximum(one, other).mean()
        overlaps.append(float((smaller + _FLOOR) / (larger + _FLOOR)))
    return float(np.nan_to_num(np.min(overlaps)))


def disagreement(identity: Mapping[str, str], measure: Callable[[], float]) -> str | None:
    """What is wrong, for an error or a warning that goes on with what to use instead; None where masks agree.

    Args:
        identity: all that the comparison depends on, by name; of it, the message names backend, version and precision.
        measure: compares, and gives the agreement; called where none was recorded of this identity.
    """
    value = agreement_once(identity, measure)
    if value >= LEAST_AGREEMENT:
        return None
    return (
        f"backend={identity['backend']!r} ({identity['version']}) in {identity['precision']} does not give the masks "
        f"of float32 on this machine, {processor()}: agreement {value:.2f} on packaged pictures, at least "
        f"{LEAST_AGREEMENT} expected"
    )


def agreement_once(identity: Mapping[str, str], measure: Callable[[], float]) -> float:
    """``measure()``, or what it gave before of the same ``identity``, in other processes too if it can be written."""
    of_machine = {**identity, "processor": processor(), "iir_sdk": code()}
    value = recorded_agreement(of_machine)
    if value is None:
        value = _OF_THIS_PROCESS[_key(of_machine)] = measure()
        text = json.dumps({"identity": of_machine, "agreement": value}, indent=2)
        with contextlib.suppress(OSError, ValueError, IirError):
            write_text_atomically(_place(_key(of_machine)), text + "\n")
    return value


def recorded_agreement(identity: Mapping[str, str]) -> float | None:
    """The agreement that was recorded of ``identity``; None where there is none, or it cannot be read."""
    key = _key(identity)
    if key in _OF_THIS_PROCESS:
        return _OF_THIS_PROCESS[key]
    try:
        record = json.loads(_place(key).read_text(encoding="utf-8"))
        if record["identity"] == dict(identity) and 0 <= record["agreement"] <= 1:
            return float(record["agreement"])
    except (OSError, ValueError, LookupError, TypeError):
        # Not there, not ours to read, or damaged: it is found out anew.
        pass
    return None


def processor() -> str:
    """This machine's, with the instructions it has: hypervisors give different ones the same name."""
    limits = " ".join(os.environ.get(name, "") for name in _LIMITS)
    try:
        first = _STATED_BY_LINUX.read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return " ".join((platform.processor(), platform.platform(), limits)).strip()
    stated = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    all_of_it = json.dumps([platform.machine(), limits, *(stated.get(name, "") for name in (*_OF_X86, *_OF_ARM))])
    return f"{stated.get('model name', platform.machine())} ({digest(all_of_it.encode())[:12]})"


@cache
def code() -> str:
    """This package's, as far as it predicts: a version in the making changes without a new number."""
    package = Path(iir_sdk.__file__).parent
    files = [f for f in sorted(package.rglob("*.py")) if f.relative_to(package).parts[0] != "training"]
    return f"{iir_sdk.__version__} ({digest(*(file.read_bytes() for file in files))[:12]})"


def digest(*contents: bytes) -> str:
    """Of files' contents, in this order."""
    whole = hashlib.sha256()
    for content in contents:
        whole.update(content)
    return whole.hexdigest()


def _key(identity: Mapping[str, str]) -> str:
    return digest(json.dumps(dict(identity), sort_keys=True).encode())[:32]


def _place(key: str) -> Path:
    return cached_assets_path("iir_sdk", namespace=f"precision-{iir_sdk.__version__}", subfolder=key) / "agreement.json"
