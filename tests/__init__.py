"""The Hub's client reads its settings once, when it is first imported; here they name a Hub of the tests' own."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

from tests.hub_server import HubServer

HUB = HubServer()

_HOME = tempfile.mkdtemp(prefix="iir_sdk-hub-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
SETTINGS = {
    "HF_ENDPOINT": HUB.url,
    "HF_HOME": _HOME,
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DOWNLOAD_TIMEOUT": "5",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}
for _name in [n for n in os.environ if n.startswith(("HF_", "HUGGING_FACE", "HUGGINGFACE"))]:
    del os.environ[_name]
os.environ.update(SETTINGS)
