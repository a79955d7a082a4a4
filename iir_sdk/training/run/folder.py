"""The folder of a training run: recipe, data list, log, checkpoints, curve; everything written beside and renamed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from iir_sdk.errors import ConfigError
from iir_sdk.files import made_folder, write_atomically, write_text_atomically
from iir_sdk.training.config import TrainingConfig

LAST, BEST = "last.pt", "best.pt"


class RunFolder:
    """Keeps a run and what it is made of; where it does not write, as in all processes but one, it only reads."""

    def __init__(self, path: Path, config: TrainingConfig, contents: Mapping[str, Any], *, writes: bool = True) -> None:
        self.path, self.config, self.contents, self.writes = path, config, contents, writes
        if writes:
            made_folder(path)

    def open(self, *, resume: bool, device: torch.device) -> dict[str, Any] | None:
        """The state to go on from, None for a fresh run; a ConfigError for another's, or any without ``resume``."""
        state = None
        if (self.path / LAST).exists():
            if not resume:
                raise ConfigError(f"{self.path} holds a run; pass --resume to go on with it, or name another folder.")
            self._check_same()
            state = torch.load(self.path / LAST, map_location=device, weights_only=True)
        if self.writes:
            self._write("recipe.json", json.dumps(self.config.to_dict(), indent=2))
            self._write("data.json", json.dumps(self.contents, indent=1))
        return state

    def _check_same(self) -> None:
        for name, same in (("recipe", self.config.is_kept_as), ("data", self._are_contents)):
            file = self.path / f"{name}.json"
            if file.exists() and not same(json.loads(file.read_text(encoding="utf-8"))):
                raise ConfigError(
                    f"{file} differs from the given {name}; resume with the same, or name another folder."
                )

    def _are_contents(self, written: dict[str, Any]) -> bool:
        # Through JSON, which has lists where the records have tuples.
        return bool(written == json.loads(json.dumps(self.contents)))

    def save(self, name: str, state: Mapping[str, Any], *, always: bool = False) -> None:
        """Write tensors and numbers to a file of the folder in one step; ``always``: from any process."""
        if self.writes or always:
            write_atomically(self.path / name, lambda beside: torch.save(dict(state), beside))

    def log(self, line: Mapping[str, float | int]) -> None:
        """Add a line to ``log.jsonl``."""
        if not self.writes:
            return
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def lines(self) -> list[dict[str, float]]:
        """The log; of a step that was logged twice, as after a stop, the later line."""
        file = self.path / "log.jsonl"
        if not file.exists():
            return []
        of_step: dict[tuple[int, bool], dict[str, float]] = {}
        for text in file.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            of_step[int(line["step"]), "validation_miou" in line] = line
        return [of_step[key] for key in sorted(of_step)]

    def _write(self, name: str, text: str) -> None:
        write_text_atomically(self.path / name, text + "\n")
