"""Build step: puts the top-level ``weights_manifest.json`` inside the package, in wheels and source archives.

Named in ``setup.cfg``; runs at build time only.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py

MANIFEST = "weights_manifest.json"
STEP = "tools/manifest_in_wheel.py"


class BuildWithManifest(build_py):
    """``build_py`` that also copies the manifest; an editable install reads it from the checkout."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            shutil.copyfile(MANIFEST, Path(self.build_lib) / "iir_sdk" / MANIFEST)

    def get_source_files(self) -> list[str]:
        """What a source archive holds: the manifest too, at its top, and this step, which builds the wheel from it."""
        files: list[str] = super().get_source_files()  # type: ignore[no-untyped-call]
        return [*files, MANIFEST, STEP]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Everything this step writes, the copy included."""
        copied = [] if self.editable_mode else [str(Path(self.build_lib) / "iir_sdk" / MANIFEST)]
        return [*super().get_outputs(include_bytecode), *copied]
