"""What was found out once about this machine, kept among the Hub client's cached assets."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from huggingface_hub import cached_assets_path

import iir_sdk
from iir_sdk.errors import IirError
from iir_sdk.files import write_text_atomically

Identity = Mapping[str, str]
"""All that an outcome depends on, by name."""

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


def kept_agreement(identity: Identity) -> float | None:
    """The agreement that was kept of ``identity``; None where there is none, or it cannot be read."""
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


def keep_agreement(identity: Identity, agreement: float) -> None:
    """Keep it, for other processes too where the cache can be written."""
    key = _key(identity)
    _OF_THIS_PROCESS[key] = agreement
    text = json.dumps({"identity": dict(identity), "agreement": agreement}, indent=2)
    with contextlib.suppress(OSError, ValueError, IirError):
        write_text_atomically(_place(key), text + "\n")


def processor() -> str:
    """This machine's, with the instructions it has: hypervisors give different ones the same name."""
    limits = " ".join(os.environ.get(name, "") for name in _LIMITS)
    try:
        first = _STATED_BY_LINUX.read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return " ".join((platform.processor(), platform.platform(), limits)).strip()
    stated = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    all_of_it = json.dumps([platform.machine(), limits, *(stated.get(name, "") for name in (*_OF_X86, *_OF_ARM))])
    name = stated.get("model name", platform.machine())
    return f"{name} ({hashlib.sha256(all_of_it.encode()).hexdigest()[:12]})"


@cache
def code() -> str:
    """This package's, as far as it predicts: a version in the making changes without a new number."""
    package, content = Path(iir_sdk.__file__).parent, hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        if file.relative_to(package).parts[0] != "training":
            content.update(file.read_bytes())
    return f"{iir_sdk.__version__} ({content.hexdigest()[:12]})"


def _key(identity: Identity) -> str:
    return hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()[:32]


def _place(key: str) -> Path:
    return cached_assets_path("iir_sdk", namespace=f"precision-{iir_sdk.__version__}", subfolder=key) / "agreement.json"
