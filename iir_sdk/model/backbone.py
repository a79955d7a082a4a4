"""An ImageNet classifier as three taps and its head, of any timm network with feature taps or plain ViT (section 1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from iir_sdk.errors import ConfigError
from iir_sdk.model.prototypes import grid_size, resize_mask
from iir_sdk.torchvision_import import imported_timm

_POOLING_AND_HEAD = ("global_pool", "pre_logits", "head", "fc", "classifier", "head_drop")


class Taps(NamedTuple):
    """Feature maps of one pass."""

    low: Tensor  # ``(B, C_low, H/8, W/8)``
    mid: Tensor  # ``(B, C_mid, H/16, W/16)``
    high: Tensor  # ``(B, C_high, H/32, W/32)``, of a transformer at its own stride


class Backbone(nn.Module):
    """A frozen timm classifier with its ``low``, ``mid`` and ``high`` taps and its head.

    The network is split at the taps so that the last stage can be run on a changed ``mid`` map (the proxy
    class, Grad-CAM): ``high_from_mid`` and ``pooled_map`` run the modules that follow a tap. This asks for a
    network that runs its children in the order they are listed; :meth:`check_order` proves it.

    Args:
        name: timm model name, e.g. ``tf_efficientnet_lite2``, ``resnet50``, ``vgg16_bn``.

    Raises:
        ConfigError: a name timm does not know, a network without three taps, one that cannot be split at them, or one
            without a linear classifier.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net = create_network(name)
        info = cast(Any, self.net).feature_info
        entries = list(getattr(info, "info", info))
        if len(entries) < 3:
            raise ConfigError(f"backbone {name!r} has {len(entries)} feature taps; three are needed.")
        self.channels: tuple[int, int, int] = cast(Any, tuple(e["num_chs"] for e in entries[-3:]))
        self._tap_indices = list(range(len(entries) - 3, len(entries)))
        path = [p for p, _ in _sequence(self.net, [e["module"] for e in entries])]
        if not {entries[-2]["module"], entries[-1]["module"]} <= set(path):
            raise ConfigError(f"backbone {name!r} does not run its stages one after the other; it cannot be split.")
        mid, high = (path.index(entries[i]["module"]) for i in (-2, -1))
        # Paths, not modules: registering a module twice would store its weights twice.
        self._after_mid, self._after_high = path[mid + 1 : high + 1], path[high + 1 :]
        if not isinstance(cast(Any, self.net).get_classifier(), nn.Linear):
            raise ConfigError(f"backbone {name!r} has no linear classifier, whose rows class activation maps are of.")
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: the backbone is frozen, its batch norms too."""
        return super().train(False)

    def forward(self, images: Tensor) -> Taps:
        """Taps of normalised images ``(B, 3, H, W)``."""
        maps = cast(Any, self.net).forward_intermediates(
            images, indices=self._tap_indices, intermediates_only=True, stop_early=True
        )
        return Taps(*maps)

    def high_from_mid(self, mid: Tensor) -> Tensor:
        """Run the last stage: ``mid (B, C_mid, h, w)`` -> ``high (B, C_high, h/2, w/2)``."""
        return self._run(self._after_mid, mid)

    def pooled_map(self, high: Tensor) -> Tensor:
        """The map that the classifier pools, ``(B, C, h, w)``."""
        return self._run(self._after_high, high)

    def object_map(self, mid: Tensor, high: Tensor, mask: Tensor) -> Tensor:
        """The pooled map of what lies inside ``mask (B, 1, H, W)`` alone: the last stage run on masked ``mid``."""
        masked = mid * resize_mask(mask, grid_size(mid)).to(mid.dtype)
        return self.pooled_map(self.high_from_mid(masked))

    def logits(self, pooled_map: Tensor) -> Tensor:
        """Class logits ``(B, 1000)`` of a pooled map."""
        logits: Tensor = self.classifier(self.pre_logits(pooled_map))
        return logits

    def pre_logits(self, pooled_map: Tensor) -> Tensor:
        """What the linear classifier reads, ``(B, C)``, of a pooled map."""
        return cast(Tensor, cast(Any, self.net).forward_head(pooled_map, pre_logits=True))

    @property
    def map_channels(self) -> int:
        """How many of ``mid``'s channels differ from place to place."""
        return self.channels[1]

    @property
    def classifier(self) -> nn.Linear:
        """The last layer of the head."""
        return cast(nn.Linear, cast(Any, self.net).get_classifier())

    @property
    def class_weight(self) -> Tensor:
        """Rows of the linear classifier, ``(1000, C)``."""
        return self.classifier.weight

    @property
    def supports_closed_form(self) -> bool:
        """Whether ``W_c . h(x, y)`` is the exact CAM: average pooling, then one linear layer and nothing else."""
        children = list(self.net.named_children())
        start = next(i for i, (name, _) in enumerate(children) if name in _POOLING_AND_HEAD)
        head = [m for _, child in children[start:] for m in child.modules()]
        learned = [m for m in head if list(m.parameters(recurse=False))]
        return len(learned) == 1 and isinstance(learned[0], nn.Linear)

    def check_order(self, images: Tensor) -> bool:
        """Whether running the listed modules after ``mid`` gives the network's own final features."""
        taps = self(images)
        return alike(self.pooled_map(self.high_from_mid(taps.mid)), cast(Any, self.net).forward_features(images))

    def _run(self, paths: list[str], x: Tensor) -> Tensor:
        for path in paths:
            x = self.net.get_submodule(path)(x)
        return x


class VitBackbone(Backbone):
    """Blocks at a quarter, three quarters and the end of the depth as ``low``, ``mid`` and ``high``, all at one stride.

    ``mid`` carries the class token beside every patch token (``2 C`` channels), so that the last blocks can be run on a
    changed map. The linear head reads the mean patch token, which makes the closed-form CAM exact; of a head trained on
    class and patch tokens together, as DINOv2's, that is the patch tokens' half.

    Args:
        name: timm name of a vision transformer, e.g. ``vit_large_patch14_dinov2``.

    Raises:
        ConfigError: the network is not a plain vision transformer.
    """

    def __init__(self, name: str) -> None:
        nn.Module.__init__(self)
        self.net = create_network(name, num_classes=0, dynamic_img_size=True)
        for part in ("blocks", "norm", "cls_token", "patch_embed"):
            if getattr(self.net, part, None) is None:
                raise ConfigError(f"backbone {name!r} is no plain vision transformer: it has no {part}.")
        width, depth = int(cast(Any, self.net).embed_dim), len(cast(Any, self.net).blocks)
        if depth < 4:
            raise ConfigError(f"backbone {name!r} has {depth} blocks; four are needed.")
        self.channels = (width, 2 * width, width)
        self._tap_indices = [depth // 4 - 1, 3 * depth // 4 - 1]
        self.head = nn.Linear(width, 1000)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Taps:
        """Taps of normalised images ``(B, 3, H, W)``, sides multiples of the patch."""
        net = cast(Any, self.net)
        (low, _), (mid, prefix) = net.forward_intermediates(
            images, indices=self._tap_indices, return_prefix_tokens=True, intermediates_only=True, stop_early=True
        )
        spread = prefix[:, 0, :, None, None].expand(-1, -1, *mid.shape[2:])
        mid = torch.cat([mid, spread], 1)
        # The blocks after the tap have not run yet; here is where they do.
        return Taps(low, mid, self.high_from_mid(mid))

    def high_from_mid(self, mid: Tensor) -> Tensor:
        """Run the last blocks: ``mid (B, 2 C, h, w)`` -> ``high (B, C, h, w)``.

        A mask on the map dims patch and class tokens alike; the class token is taken where it is strongest.
        """
        net, width = cast(Any, self.net), mid.shape[1] // 2
        patches = mid[:, :width].flatten(2).transpose(1, 2)
        copies = mid[:, width:].flatten(2)
        strongest = copies.detach().square().sum(1).argmax(1)
        token = copies.gather(2, strongest[:, None, None].expand(-1, width, 1)).transpose(1, 2)
        tokens = torch.cat([token, patches], 1)
        for block in net.blocks[self._tap_indices[1] + 1 :]:
            tokens = block(tokens)
        tokens = net.norm(tokens)[:, 1:]
        high: Tensor = tokens.transpose(1, 2).reshape(len(mid), width, *mid.shape[2:])
        return high

    def pooled_map(self, high: Tensor) -> Tensor:
        """The patch tokens themselves are what the head pools."""
        return high

    def pre_logits(self, pooled_map: Tensor) -> Tensor:
        """The mean patch token, ``(B, C)``."""
        return pooled_map.mean((2, 3))

    @property
    def map_channels(self) -> int:
        """The patch tokens' half of ``mid``; the class token's is the same everywhere and would only shift a CAM."""
        return self.channels[1] // 2

    @property
    def classifier(self) -> nn.Linear:
        """The head."""
        return self.head

    @property
    def supports_closed_form(self) -> bool:
        """Always: the head is the mean of the patch tokens and one linear layer."""
        return True

    def check_order(self, images: Tensor) -> bool:
        """Whether running the last blocks after ``mid`` gives the network's own final patch tokens."""
        tokens = cast(Any, self.net).forward_features(images)
        return alike(self(images).high.flatten(2).transpose(1, 2), tokens[:, cast(Any, self.net).num_prefix_tokens :])


def taps_of(backbone: nn.Module, images: Tensor) -> Taps:
    """A batch's taps; on a CPU picture by picture, since a batch's maps leave the cache and take twice as long."""
    if images.device.type != "cpu" or len(images) == 1:
        return cast(Taps, backbone(images))
    singly = [backbone(image[None]) for image in images]
    return Taps(*(torch.cat(maps) for maps in zip(*singly, strict=True)))


def create_network(name: str, **settings: Any) -> nn.Module:
    """A timm network with random weights; a ConfigError for a name or settings that timm does not take."""
    timm = imported_timm()
    if not timm.is_model(name):
        raise ConfigError(f"backbone {name!r} is not a timm model name; timm.list_models() prints those that are.")
    try:
        return cast(nn.Module, timm.create_model(name, pretrained=False, **settings))
    except TypeError as error:
        raise ConfigError(f"backbone {name!r} cannot be built with {settings}: {error}.") from error


def alike(split: Tensor, whole: Tensor) -> bool:
    """Whether a network run in two parts gives what it gives when run as a whole."""
    return bool(split.shape == whole.shape and (split - whole).abs().max() <= 1e-4 * whole.abs().max())


def _sequence(net: nn.Module, tap_paths: list[str]) -> Iterator[tuple[str, nn.Module]]:
    """Children in running order up to the pooling; a container that holds taps is opened one level."""
    opened = {p.split(".")[0] for p in tap_paths if "." in p}
    for name, child in net.named_children():
        if name in _POOLING_AND_HEAD:
            return
        if name in opened:
            yield from ((f"{name}.{inner}", module) for inner, module in child.named_children())
        else:
            yield name, child
