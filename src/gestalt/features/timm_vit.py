"""Dense features of timm's vision transformers: DINOv2 and DINOv3, with registers and rotary positions.

timm is optional and only builds the architecture; weights come from a local file, nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gestalt.errors import ConfigError, MissingDependencyError
from gestalt.features.dense import FeatureGrid, normalise
from gestalt.features.transformer import TransformerFeatures

# Names that timm gives to widths, for architectures that differ in nothing else.
DINOV2_NAMES = {384: "small", 768: "base", 1024: "large", 1536: "giant"}
DINOV3_NAMES = {384: "small", 768: "base", 1024: "large", 1280: "huge_plus", 4096: "7b"}
# What the registers are called: by DINOv2, by DINOv3, by timm.
REGISTERS = ("register_tokens", "storage_tokens", "reg_token")
# The first tensor of a gated perceptron, in DINOv3's and timm's names.
GATED = ("blocks.0.mlp.w1.weight", "blocks.0.mlp.fc1_g.weight")
SHOWN = 12


class AttentionRecorder(TorchFunctionMode):
    """Keeps queries and keys of the latest attention inside its block.

    They are taken where they enter ``scaled_dot_product_attention``: after biases, norms and rotary positions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queries: Tensor | None = None
        self.keys: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Pass every call on, and look at those of attention."""
        if func is functional.scaled_dot_product_attention:
            self.queries, self.keys = args[0], args[1]
        return func(*args, **(kwargs or {}))


class TimmFeatures(TransformerFeatures):
    """A network of timm, frozen.

    Tokens are those after the final norm, without CLS and registers; keys are those that enter the attention of the
    last block, so with rotary positions (DINOv3) they are rotated. Learned positions are interpolated by timm to the
    explicit grid size (bicubic, antialiased); DINOv2's own code adds 0.1 to the size for its models without registers.

    Args:
        architecture: timm's name, such as ``vit_small_patch14_reg4_dinov2``.
        facet: See ``TransformerFeatures``.
        source: See ``TransformerFeatures``.

    Raises:
        MissingDependencyError: timm is not installed.
        ConfigError: timm has no vision transformer of that name, or the facet is unknown.
    """

    kind: ClassVar[str] = "timm"

    def __init__(
        self, architecture: str, facet: str = "tokens", source: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(facet, source)
        self.architecture = architecture
        self.network = build_timm(architecture)
        self.stride, self.dimension = int(self.network.patch_embed.patch_size[0]), self.network.num_features
        self.eval().requires_grad_(False)

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> TimmFeatures:
        """Features without weights, of the architecture in ``card``."""
        return cls(card["architecture"], card["facet"], card["source"])

    def card(self) -> dict[str, Any]:
        """Architecture, facet, origin."""
        return {"architecture": self.architecture, "facet": self.facet, "source": self.source}

    def encode_part(self, images: Tensor, cells: Tensor | None = None) -> FeatureGrid:
        """See ``TransformerFeatures.encode_part``; always whole images, as timm masks no cells."""
        assert cells is None
        # Part of what the architecture's name means: DINOv2 and DINOv3 take ImageNet's, others may not.
        expected = self.network.pretrained_cfg
        normalised = normalise(images, expected["mean"], expected["std"])
        size = (images.shape[2] // self.stride, images.shape[3] // self.stride)
        with AttentionRecorder() as recorder:
            tokens = self.network.forward_features(normalised)
        if recorder.queries is None or recorder.keys is None:
            raise ConfigError(f"{self.architecture} has no fused attention, so its keys cannot be seen")
        # Heads apart: (B, heads, N, D / heads).
        first, keys = recorder.queries[:, :, 0], recorder.keys
        scores = torch.einsum("bhd,bhnd->bhn", first, keys).float() * first.shape[-1] ** -0.5
        n_before = self.network.num_prefix_tokens

        def on_grid(values: Tensor) -> Tensor:
            cells = values[:, :, n_before:]
            return cells.reshape(*cells.shape[:2], *size)

        grid = on_grid(tokens.transpose(1, 2))
        key_grid = on_grid(keys.transpose(2, 3).flatten(1, 2))
        return FeatureGrid(
            tokens=self.choose(grid, key_grid),
            valid=torch.ones(len(images), *size, dtype=torch.bool, device=images.device),
            keys=key_grid,
            cls=tokens[:, 0],
            cls_attention=on_grid(scores.softmax(-1)),
        )


def build_timm(architecture: str) -> Any:
    """Timm's vision transformer of that name, with random weights, for images of any size.

    Raises:
        MissingDependencyError: timm is not installed.
        ConfigError: There is no such vision transformer.
    """
    timm = import_timm()
    if not timm.is_model(architecture):
        known = ", ".join(timm.list_models(f"*{architecture.split('.')[0].split('_')[-1]}*")[:SHOWN])
        raise ConfigError(
            f"timm {timm.__version__} has no {architecture!r}; of that family: {known or 'none'}"
        )
    try:
        network = timm.create_model(architecture, pretrained=False, num_classes=0, dynamic_img_size=True)
    except TypeError as error:
        raise ConfigError(
            f"{architecture!r} takes no images of any size, so it is no ViT: {error}"
        ) from error
    if getattr(network, "cls_token", None) is None:
        raise ConfigError(f"{architecture!r} has no CLS token; a DINO-like vision transformer is expected")
    return network


def convert_for_timm(network: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensor names of DINOv2's and DINOv3's authors as timm's; timm's own stay as they are.

    Tensors of another architecture stay as they are too, so that a comparison with the network's names them. Of these
    are patches of another size: timm would resample them and give other features without a word.
    """
    import sys

    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    patches = tensors.get("patch_embed.proj.weight")
    if convert is None or patches is None or patches.shape != network.patch_embed.proj.weight.shape:
        return dict(tensors)
    try:
        converted: dict[str, Tensor] = convert(dict(tensors), network)
    except (KeyError, RuntimeError, ValueError, AttributeError, TypeError):
        return dict(tensors)
    return converted


def name_timm_architecture(tensors: Mapping[str, Tensor]) -> str | None:
    """The architecture of weights without a name, from names and shapes; None where they are not of timm's kind.

    DINOv2 has scaled residuals and learned positions, DINOv3 has registers and no positions of its own.

    Args:
        tensors: A bare state dict, in the authors' names or timm's.

    Raises:
        ConfigError: They are of that kind, but several architectures or none have these sizes.
    """
    patches = tensors.get("patch_embed.proj.weight")
    is_scaled = any(name in tensors for name in ("blocks.0.ls1.gamma", "blocks.0.gamma_1"))
    registers = next((tensors[name] for name in REGISTERS if name in tensors), None)
    if patches is None or patches.ndim != 4 or not is_scaled:
        return None
    width, side = patches.shape[0], patches.shape[-1]
    n_registers = 0 if registers is None else registers.shape[1]
    facts = f"{width} wide, patch {side}, {n_registers} registers"
    if "pos_embed" in tensors:
        size = DINOV2_NAMES.get(width)
        middle = {0: "", 4: "_reg4"}.get(n_registers)
        name = f"vit_{size}_patch{side}{middle}_dinov2"
        if size is None or middle is None or side != 14:
            raise ConfigError(_several(facts, "*dinov2*"))
        return name
    size = DINOV3_NAMES.get(width)
    if width == 384 and any(name in tensors for name in GATED):
        size = "small_plus"
    if size is None or n_registers != 4 or side != 16:
        raise ConfigError(_several(facts, "*dinov3*"))
    has_biases = any(name in tensors for name in ("blocks.0.attn.qkv.bias", "blocks.0.attn.q_bias"))
    return f"vit_{size}_patch16_dinov3{'_qkvb' if has_biases else ''}"


def import_timm() -> Any:
    """The library.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            "DINOv2- and DINOv3-like weights need timm's architectures: pip install -e '.[timm]'"
        ) from error
    return timm


def _several(facts: str, pattern: str) -> str:
    names = ", ".join(import_timm().list_models(pattern))
    return f"no single timm architecture has these sizes ({facts}); name one with --architecture: {names}"
