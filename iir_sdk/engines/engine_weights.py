"""The weights that an engine runs: seen, saved and published."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from iir_sdk.engines.base import Engine
from iir_sdk.errors import ConfigError
from iir_sdk.pictures.preprocess import Preprocessing

if TYPE_CHECKING:
    import torch

    from iir_sdk.engines.pytorch import TorchEngine
    from iir_sdk.model.iir import IIR
    from iir_sdk.weights.checkpoint_file import Checkpoint
    from iir_sdk.weights.entry import WeightsEntry


class EngineWeights:
    """What a segmenter offers of the weights that its engine runs."""

    engine: Engine

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        name: str | None = None,
        description: str | None = None,
        license: str | None = None,
        training_data: Sequence[str] | None = None,
    ) -> WeightsEntry:
        """Write ``model.safetensors``, ``config.json`` and a model card, for :meth:`from_pretrained` to load.

        Args:
            folder: made if missing; files of these names in it are replaced.
            name: of the checkpoint; None keeps the present one, likewise for the rest.
            description: one line.
            license: SPDX identifier of the weights' licence.
            training_data: names of the training sets.

        Returns:
            What was saved: sizes, sha256 and the rest.

        Raises:
            WeightsError: a value breaks its rule.
            OutputError: the folder cannot be written.
        """
        from iir_sdk.weights.saving import described, save_folder

        entry = described(self.checkpoint.entry, name, description, license, training_data)
        return save_folder(replace(self.checkpoint, entry=entry, model=self.model), folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | bool | None = None,
        private: bool | None = None,
        commit_message: str = "Upload an iir_sdk checkpoint",
        name: str | None = None,
        description: str | None = None,
        license: str | None = None,
        training_data: Sequence[str] | None = None,
    ) -> WeightsEntry:
        """Save as :meth:`save_pretrained` does, and commit it to a repository on the Hub, made if missing.

        Returns:
            What was published, with the commit as ``revision``: fetched back from the Hub and verified.

        Raises:
            WeightsError: a value breaks its rule, or no licence is stated.
            HubError, HubAccessError, WeightsNotFoundError: the Hub did not take it.
            IntegrityError: what the Hub gives back is not what was sent.
        """
        from iir_sdk.weights.saving import described, publish_checkpoint

        entry = described(self.checkpoint.entry, name, description, license, training_data)
        checkpoint = replace(self.checkpoint, entry=entry, model=self.model)
        return publish_checkpoint(checkpoint, repo_id, token=token, private=private, message=commit_message)

    @property
    def torch_engine(self) -> TorchEngine:
        """The engine where it is PyTorch's: its ``model``, ``device`` and the checkpoint's file are its own.

        Raises:
            ConfigError: another backend runs the network.
        """
        from iir_sdk.engines.pytorch import TorchEngine

        if not isinstance(self.engine, TorchEngine):
            raise ConfigError(f"this needs backend='torch'; {type(self.engine).__name__} holds no torch network.")
        return self.engine

    @property
    def checkpoint(self) -> Checkpoint:
        """The verified weights; raises as :attr:`torch_engine` does."""
        return self.torch_engine.checkpoint

    @property
    def model(self) -> IIR:
        """The network as loaded; raises as :attr:`torch_engine` does, likewise :attr:`device` and :attr:`dtype`."""
        return self.torch_engine.model

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.torch_engine.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.torch_engine.dtype

    @property
    def preprocessing(self) -> Preprocessing:
        """What its pictures go through."""
        return self.engine.identity.preprocessing
