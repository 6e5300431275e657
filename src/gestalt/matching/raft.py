"""RAFT as a network: two images in, the displacement of every pixel of the first one out.

Two variants: ``large`` is the network of SMURF's weights, ``small`` a fifth of its size. Blocks are torchvision's;
the correlation is our own, because SMURF's weights want its window in another order than torchvision's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.optical_flow.raft import (
    BottleneckBlock,
    FeatureEncoder,
    FlowHead,
    MaskPredictor,
    MotionEncoder,
    RecurrentBlock,
    ResidualBlock,
    UpdateBlock,
)

from gestalt.errors import ConfigError, ShapeError
from gestalt.matching.warping import pixel_grid

# Features have an eighth of the image's rows and columns.
STRIDE = 8
# All-pairs correlation at 1, 1/2, 1/4 and 1/8 of the features' size; the last needs a cell in each direction.
LEVELS = 4
MIN_SIDE = STRIDE * 2 ** (LEVELS - 1)
# Gradients into the upsampling weights are damped by this much (Teed and Deng).
UPSAMPLING_SCALE = 0.25


@dataclass(frozen=True)
class Layout:
    """The sizes of a variant; names as in Teed and Deng, ECCV 2020.

    Attributes:
        block: Residual block of both encoders.
        encoder_channels: Channels of stem, three groups of blocks and output of the feature encoder.
        context_channels: The same of the context encoder; its output is hidden state and context.
        context_norm: Normalisation of the context encoder; the feature encoder has instance normalisation.
        radius: Half width of the window that is looked up around a displacement, cells of a level.
        correlation_channels: Motion encoder, branch of the correlation.
        displacement_channels: Motion encoder, branch of the displacement.
        motion_channels: Output of the motion encoder.
        hidden_channels: State of the recurrent unit.
        kernels: Kernels of the recurrent unit's passes.
        head_channels: Inside the head that predicts the update.
        has_convex_upsampling: Whether weights over 3x3 cells are learnt, instead of bilinear interpolation.
    """

    block: type[nn.Module]
    encoder_channels: tuple[int, ...]
    context_channels: tuple[int, ...]
    context_norm: type[nn.Module] | None
    radius: int
    correlation_channels: tuple[int, ...]
    displacement_channels: tuple[int, int]
    motion_channels: int
    hidden_channels: int
    kernels: tuple[tuple[int, int], ...]
    head_channels: int
    has_convex_upsampling: bool


LAYOUTS = {
    "large": Layout(
        block=ResidualBlock,
        encoder_channels=(64, 64, 96, 128, 256),
        context_channels=(64, 64, 96, 128, 256),
        context_norm=nn.InstanceNorm2d,
        radius=4,
        correlation_channels=(256, 192),
        displacement_channels=(128, 64),
        motion_channels=128,
        hidden_channels=128,
        kernels=((1, 5), (5, 1)),
        head_channels=256,
        has_convex_upsampling=True,
    ),
    "small": Layout(
        block=BottleneckBlock,
        encoder_channels=(32, 32, 64, 96, 128),
        context_channels=(32, 32, 64, 96, 160),
        context_norm=None,
        radius=3,
        correlation_channels=(96,),
        displacement_channels=(64, 32),
        motion_channels=82,
        hidden_channels=96,
        kernels=((3, 3),),
        head_channels=128,
        has_convex_upsampling=False,
    ),
}


@dataclass(frozen=True, eq=False)
class Features:
    """What the encoders say of B images, at an eighth of their size (h = H / 8, w = W / 8).

    Attributes:
        matching: (B, C, h, w) float, compared between the images of a pair.
        hidden: (B, S, h, w) float in [-1, 1], first state of the recurrent unit.
        context: (B, K, h, w) float, not negative, what the recurrent unit sees of the first image.
    """

    matching: Tensor
    hidden: Tensor
    context: Tensor

    @staticmethod
    def join(parts: Sequence[Features]) -> Features:
        """One batch of several."""
        return Features(
            torch.cat([part.matching for part in parts]),
            torch.cat([part.hidden for part in parts]),
            torch.cat([part.context for part in parts]),
        )


class Raft(nn.Module):
    """Recurrent all-pairs field transforms.

    Args:
        variant: ``large`` (5.3 million weights) or ``small`` (1.0 million).

    Attributes:
        variant: As given.

    Raises:
        ConfigError: The variant is unknown.

    Source:
        Teed and Deng, ECCV 2020; ``large`` with instance normalisation in both encoders and the window of the
        correlation in rows, as Stone et al. (SMURF, CVPR 2021) train it. The parameters' names are torchvision's.
    """

    def __init__(self, variant: str) -> None:
        super().__init__()
        if variant not in LAYOUTS:
            raise ConfigError(f"the variant of RAFT must be one of {', '.join(LAYOUTS)}. Got: {variant!r}")
        layout = LAYOUTS[variant]
        self.variant = variant
        self._radius = layout.radius
        self._hidden_channels = layout.hidden_channels
        self.feature_encoder = FeatureEncoder(
            block=layout.block, layers=layout.encoder_channels, norm_layer=nn.InstanceNorm2d
        )
        self.context_encoder = FeatureEncoder(
            block=layout.block, layers=layout.context_channels, norm_layer=layout.context_norm
        )
        self.update_block = _update_block(layout)
        self.mask_predictor = (
            MaskPredictor(in_channels=layout.hidden_channels, hidden_size=256, multiplier=UPSAMPLING_SCALE)
            if layout.has_convex_upsampling
            else None
        )

    def forward(self, first: Tensor, second: Tensor, iterations: int) -> list[Tensor]:
        """The displacement after every update; for training.

        Args:
            first: (B, 3, H, W) float in [0, 1], RGB; H and W are multiples of 8 and at least 64.
            second: The same shape.
            iterations: Number of updates, at least 1.

        Returns:
            As many (B, 2, H, W) float32, pixels, x then y: what ``first`` shows at p, ``second`` shows at
            p + displacement. The start of an update gets no gradient from it.

        Raises:
            ShapeError: The images have another form, differ, or are too small.
        """
        check_images(first)
        if first.shape != second.shape:
            raise ShapeError(
                f"the images of a pair need one shape. Got: {tuple(first.shape)} and {tuple(second.shape)}"
            )
        matching_first, matching_second = self._match_features(torch.cat([first, second])).chunk(2)
        hidden, context = self._context_features(first)
        steps = self._update(Features(matching_first, hidden, context), matching_second, iterations)
        return [self._upsample(displacement, state) for displacement, state in steps]

    def encode(self, images: Tensor) -> Features:
        """What the network keeps of images, whatever they are paired with.

        Args:
            images: (B, 3, H, W) float in [0, 1], RGB; H and W are multiples of 8 and at least 64.

        Raises:
            ShapeError: The images have another form, or are too small.
        """
        check_images(images)
        return Features(self._match_features(images), *self._context_features(images))

    def displace(self, first: Features, second: Features, iterations: int) -> Tensor:
        """The displacement after the last update; only that one is brought to full size.

        Args:
            first: Of B images.
            second: Of B images of the same size.
            iterations: Number of updates, at least 1.

        Returns:
            (B, 2, H, W) float32, pixels, x then y, on the grid of the first images.
        """
        for displacement, state in self._update(first, second.matching, iterations):
            last = displacement, state
        return self._upsample(*last)

    def _match_features(self, images: Tensor) -> Tensor:
        features: Tensor = self.feature_encoder(2 * images - 1)
        return features

    def _context_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        output = self.context_encoder(2 * images - 1)
        hidden, context = output[:, : self._hidden_channels], output[:, self._hidden_channels :]
        return torch.tanh(hidden), functional.relu(context)

    def _update(
        self, first: Features, matching_second: Tensor, iterations: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Displacement in cells, (B, 2, h, w) float32, and hidden state after every update."""
        if iterations < 1:
            raise ConfigError(f"RAFT needs at least one update. Got: {iterations}")
        batch, _, height, width = first.matching.shape
        pyramid = correlate(first.matching, matching_second)
        start = pixel_grid(height, width, first.matching.device)
        displacement = start.new_zeros(batch, *start.shape)
        state = first.hidden
        for _ in range(iterations):
            displacement = displacement.detach()
            window = look_up(pyramid, start + displacement, self._radius)
            state, update = self.update_block(state, first.context, window, displacement)
            displacement = displacement + update.float()
            yield displacement, state

    def _upsample(self, displacement: Tensor, state: Tensor) -> Tensor:
        """(B, 2, h, w) in cells -> (B, 2, 8 h, 8 w) in pixels."""
        if self.mask_predictor is None:
            return STRIDE * functional.interpolate(
                displacement, scale_factor=STRIDE, mode="bilinear", align_corners=True
            )
        return upsample_convexly(displacement, self.mask_predictor(state).float())


def check_images(images: Tensor) -> None:
    """Raise unless the network takes images of this form.

    Raises:
        ShapeError: With the form that is expected and the one that came.
    """
    height, width = images.shape[-2:]
    if images.ndim != 4 or images.shape[1] != 3 or height % STRIDE or width % STRIDE:
        raise ShapeError(
            f"RAFT needs (B, 3, H, W), H and W multiples of {STRIDE}. Got: {tuple(images.shape)}; pad the images"
        )
    if min(height, width) < MIN_SIDE:
        raise ShapeError(
            f"RAFT needs at least {MIN_SIDE} rows and columns. Got: {height}x{width}; pad the images"
        )


def correlate(first: Tensor, second: Tensor) -> list[Tensor]:
    """All-pairs correlation and its means over 2x2, 4x4 and 8x8 cells of the second image.

    Always in float32, also under autocast: positions in it are sampled between cells, which needs values and
    coordinates of one type, and bf16 rounds a coordinate by up to half a cell.

    Args:
        first: (B, C, h, w) float.
        second: (B, C, h, w) float.

    Returns:
        Per level (B h w, 1, h', w') float32: the products of a cell of ``first`` with every cell of ``second``.
    """
    batch, channels, height, width = first.shape
    with torch.autocast(first.device.type, enabled=False):
        # The features are scaled, not the products, which are by far the largest tensor of the network.
        products = (first.float() / channels**0.5).flatten(2).transpose(1, 2) @ second.float().flatten(2)
        pyramid = [products.reshape(batch * height * width, 1, height, width)]
        while len(pyramid) < LEVELS:
            pyramid.append(functional.avg_pool2d(pyramid[-1], 2))
    return pyramid


def look_up(pyramid: Sequence[Tensor], centres: Tensor, radius: int) -> Tensor:
    """Correlation in a window around a position of the second image, on all levels.

    Args:
        pyramid: As ``correlate`` makes it.
        centres: (B, 2, h, w) float32, x and y, cells of the finest level.
        radius: Half width of the window, cells of each level.

    Returns:
        (B, L n^2, h, w) float32, n = 2 radius + 1: level by level, each window in rows; 0 outside the image.
    """
    batch, _, height, width = centres.shape
    n_cells = 2 * radius + 1
    offsets = pixel_grid(n_cells, n_cells, device=centres.device).permute(1, 2, 0) - radius
    positions = centres.permute(0, 2, 3, 1).reshape(batch * height * width, 1, 1, 2)
    found = []
    with torch.autocast(centres.device.type, enabled=False):
        for level, correlation in enumerate(pyramid):
            size = offsets.new_tensor(correlation.shape[:-3:-1])
            # Centres of cells are whole numbers; the sampler counts from -1 to 1 between the outer edges.
            target = (2 * (positions / 2**level + offsets) + 1) / size - 1
            sampled = functional.grid_sample(correlation, target, mode="bilinear", align_corners=False)
            found.append(sampled.reshape(batch, height, width, n_cells**2))
    return torch.cat(found, dim=-1).permute(0, 3, 1, 2).contiguous()


def upsample_convexly(displacement: Tensor, weights: Tensor) -> Tensor:
    """Every pixel as a convex combination of the 3x3 cells around its own.

    Args:
        displacement: (B, 2, h, w) float32, cells.
        weights: (B, 576, h, w) float, logits: nine cells, times eight rows, times eight columns.

    Returns:
        (B, 2, 8 h, 8 w) float32, pixels.
    """
    batch, _, height, width = displacement.shape
    shares = weights.view(batch, 1, 9, STRIDE, STRIDE, height, width).softmax(dim=2)
    cells = functional.unfold(STRIDE * displacement, 3, padding=1).view(batch, 2, 9, 1, 1, height, width)
    pixels = (shares * cells).sum(dim=2)
    return pixels.permute(0, 1, 4, 2, 5, 3).reshape(batch, 2, STRIDE * height, STRIDE * width)


def _update_block(layout: Layout) -> nn.Module:
    motion_encoder = MotionEncoder(
        in_channels_corr=LEVELS * (2 * layout.radius + 1) ** 2,
        corr_layers=layout.correlation_channels,
        flow_layers=layout.displacement_channels,
        out_channels=layout.motion_channels,
    )
    context_channels = layout.context_channels[-1] - layout.hidden_channels
    recurrent_block = RecurrentBlock(
        input_size=layout.motion_channels + context_channels,
        hidden_size=layout.hidden_channels,
        kernel_size=layout.kernels,
        padding=tuple((rows // 2, columns // 2) for rows, columns in layout.kernels),
    )
    flow_head = FlowHead(in_channels=layout.hidden_channels, hidden_size=layout.head_channels)
    block: nn.Module = UpdateBlock(
        motion_encoder=motion_encoder, recurrent_block=recurrent_block, flow_head=flow_head
    )
    return block
