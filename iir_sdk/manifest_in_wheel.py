"""Build step: puts the top-level ``weights_manifest.json`` inside the package, in wheels and source archives.

Named in ``setup.cfg``; runs at build time only.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

MANIFEST = "weights_manifest.json"


class BuildWithManifest(build_py):
    """``build_py`` that also copies the manifest; an editable install reads it from the checkout."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            shutil.copyfile(MANIFEST, Path(self.build_lib) / "iir_sdk" / MANIFEST)


class SourceWithManifest(sdist):
    """``sdist`` that carries the manifest at its top, where the wheel build looks for it."""

    def add_defaults(self) -> None:
        """Add the manifest to the usual files."""
        super().add_defaults()
        self.filelist.append(MANIFEST)
