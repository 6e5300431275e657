"""Vision transformer in plain torch, with the tensor names of the published DINO checkpoints.

Normalised images go in; CLS and cell tokens after the final norm come out, on request with keys and the attention of
CLS in the last block. Images of different size may share a batch: cells that hold no image are left out exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gestalt.errors import ConfigError, ShapeError

NORM_EPSILON = 1e-6
INITIAL_DEVIATION = 0.02
# DINO's code adds this to the wanted grid size before it divides by the stored one, against rounding.
PUBLISHED_OFFSET = 0.1


@dataclass(frozen=True)
class VitLayout:
    """Sizes of a vision transformer.

    Attributes:
        patch_size: Side of a patch, pixels; also the stride of the cells.
        width: Length D of a token.
        depth: Number of blocks.
        heads: Attention heads; a divisor of ``width``.
        mlp_ratio: Hidden width of a block's perceptron, as a multiple of ``width``.
        grid: Side of the square grid of learned positions, cells.
        position_offset: Cells added to the wanted grid size before the scale of the interpolation of positions is
            computed. 0 aligns both grids; published DINO weights were trained and evaluated with 0.1.

    Raises:
        ConfigError: A size is not positive, or the heads do not divide the width.
    """

    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    grid: int = 28
    position_offset: float = 0.0

    def __post_init__(self) -> None:
        sizes = (self.patch_size, self.width, self.depth, self.heads, self.grid, self.mlp_ratio)
        if min(sizes) <= 0 or self.position_offset < 0 or self.width % self.heads:
            raise ConfigError(
                f"sizes of a vision transformer must be positive and heads divide width. Got: {self}"
            )

    @property
    def hidden(self) -> int:
        """Hidden width of the perceptrons."""
        return int(self.width * self.mlp_ratio)


@dataclass(frozen=True, eq=False)
class VitOutput:
    """What a vision transformer says of a batch of images.

    Attributes:
        cls: (B, D) float, CLS after the final norm.
        tokens: (B, D, h, w) float, cells after the final norm.
        keys: (B, D, h, w) float, keys of the last block's attention, heads concatenated; None unless asked for.
        cls_attention: (B, heads, h, w) float, attention of CLS to the cells in the last block. With its attention to
            itself, which is left out, it sums to one. None unless asked for.
    """

    cls: Tensor
    tokens: Tensor
    keys: Tensor | None = None
    cls_attention: Tensor | None = None


class PatchEmbedding(nn.Module):
    """Patches to tokens."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, H / patch, W / patch)."""
        cells: Tensor = self.proj(images)
        return cells


class Attention(nn.Module):
    """Multi-head self-attention with joint queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D); ``mask`` (B, 1, 1, N) bool is True where a token may be looked at."""
        batch, n_tokens, width = tokens.shape
        joint = self.qkv(tokens).reshape(batch, n_tokens, 3, self.heads, width // self.heads)
        queries, keys, values = joint.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        joined: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return joined

    def keys_and_first_row(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Keys, and what the first token looks at, without the N x N matrix of all tokens.

        Args:
            tokens: (B, N, D) float, as ``forward`` takes them.
            mask: (B, 1, 1, N) bool or None.

        Returns:
            (B, N, D) keys, heads concatenated, and (B, heads, N) attention, each row summing to one.
        """
        batch, n_tokens, width = tokens.shape
        weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        size = width // self.heads
        query = functional.linear(tokens[:, 0], weights[0], biases[0]).reshape(batch, self.heads, size)
        keys = functional.linear(tokens, weights[1], biases[1])
        by_head = keys.reshape(batch, n_tokens, self.heads, size)
        scores = torch.einsum("bhd,bnhd->bhn", query, by_head).float() * size**-0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, 0], -math.inf)
        return keys, scores.softmax(-1)


class Perceptron(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        mapped: Tensor = self.fc2(functional.gelu(self.fc1(tokens)))
        return mapped


class Block(nn.Module):
    """Attention and perceptron, each after a norm and around a shortcut that training may take for an image.

    Args:
        layout: Sizes.
        drop_path: Probability, in training mode, that an image skips the attention; likewise the perceptron.
    """

    def __init__(self, layout: VitLayout, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(layout.width, eps=NORM_EPSILON)
        self.attn = Attention(layout.width, layout.heads)
        self.norm2 = nn.LayerNorm(layout.width, eps=NORM_EPSILON)
        self.mlp = Perceptron(layout.width, layout.hidden)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        tokens = tokens + self._keep_some(self.attn(self.norm1(tokens), mask))
        return tokens + self._keep_some(self.mlp(self.norm2(tokens)))

    def _keep_some(self, change: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return change
        kept = torch.rand(len(change), 1, 1, device=change.device) >= self.drop_path
        # Scaled up, so that the expectation is that of inference.
        return change * (kept / (1 - self.drop_path)).to(change.dtype)


class VisionTransformer(nn.Module):
    """The encoder of DINO for images of any size that is a multiple of the patch.

    Args:
        layout: Sizes.
        drop_path: Probability of stochastic depth at the last block; it grows linearly from 0 at the first.

    Source:
        Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021) and Caron et al., "Emerging Properties in
        Self-Supervised Vision Transformers" (ICCV 2021). Tensor names and numbers are those of the published DINO
        weights. Attention never forms its matrix; that of CLS alone is computed for the last block.
    """

    def __init__(self, layout: VitLayout, drop_path: float = 0.0) -> None:
        super().__init__()
        self.layout = layout
        self.patch_embed = PatchEmbedding(layout.patch_size, layout.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, layout.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + layout.grid**2, layout.width))
        growth = drop_path / max(layout.depth - 1, 1)
        self.blocks = nn.ModuleList(Block(layout, growth * number) for number in range(layout.depth))
        self.norm = nn.LayerNorm(layout.width, eps=NORM_EPSILON)
        self._initialise()

    def forward(self, images: Tensor, cells: Tensor | None = None, *, attention: bool = False) -> VitOutput:
        """Tokens of images.

        Args:
            images: (B, 3, H, W) float, RGB normalised with ImageNet's mean and deviation; H and W multiples of the
                patch, values finite everywhere.
            cells: (B, 2) int, rows and columns of cells of each image where the batch was padded at the bottom and on
                the right. Those beyond are seen by no other cell, and positions are those of the smaller image, so
                the cells within get the tokens of the unpadded image. None: all cells hold image.
            attention: Also return keys and the attention of CLS.

        Returns:
            Tokens at (H / patch) x (W / patch) cells. Zero in cells beyond ``cells``.

        Raises:
            ShapeError: H or W is no multiple of the patch.
        """
        side = self.layout.patch_size
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % side or images.shape[3] % side:
            raise ShapeError(
                f"images must be (B, 3, H, W) with H and W multiples of {side}. Got: {tuple(images.shape)}"
            )
        patches = self.patch_embed(images)
        height, width = patches.shape[2:]
        tokens = patches.flatten(2).transpose(1, 2) + self._positions(height, width, cells)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(images), -1, -1)
        tokens = torch.cat([first.to(tokens.dtype), tokens], 1)
        valid = None if cells is None else cells_within(cells, height, width)
        mask = None if valid is None else functional.pad(valid.flatten(1), (1, 0), value=True)[:, None, None]

        for block in self.blocks[:-1]:
            tokens = block(tokens, mask)
        keys, looked_at = self._look(tokens, mask) if attention else (None, None)
        tokens = self.norm(self.blocks[-1](tokens, mask))

        def on_grid(values: Tensor) -> Tensor:
            grid = values.reshape(*values.shape[:2], height, width)
            return grid if valid is None else grid * valid[:, None]

        return VitOutput(
            cls=tokens[:, 0],
            tokens=on_grid(tokens[:, 1:].transpose(1, 2)),
            keys=None if keys is None else on_grid(keys[:, 1:].transpose(1, 2)),
            cls_attention=None if looked_at is None else on_grid(looked_at[:, :, 1:]),
        )

    def positions(self, height: int, width: int) -> Tensor:
        """Learned positions for a grid of any size.

        Bicubic interpolation. The scale is (size + ``position_offset``) / stored size, as in DINO's code for its 0.1:
        there the sampling points lie up to 0.1 cell (at the far border of the grid) before those of an interpolation
        to the explicit size, which an offset of 0 gives. The stored grid is returned as it is at its own size.

        Args:
            height: Rows of cells.
            width: Columns of cells.

        Returns:
            (1, height * width, D) float, row-major.
        """
        side = self.layout.grid
        stored = self.pos_embed[:, 1:]
        if (height, width) == (side, side):
            return stored
        offset = self.layout.position_offset
        scale = ((height + offset) / side, (width + offset) / side)
        grid = stored.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        if offset:
            grid = functional.interpolate(grid, scale_factor=scale, mode="bicubic")
        else:
            grid = functional.interpolate(grid, size=(height, width), mode="bicubic")
        return grid.flatten(2).transpose(1, 2)

    def _positions(self, height: int, width: int, cells: Tensor | None) -> Tensor:
        if cells is None:
            return self.positions(height, width)
        sizes = [(int(rows), int(columns)) for rows, columns in cells.tolist()]
        # Many images of a batch have one size: each is interpolated once.
        grids = {}
        for rows, columns in set(sizes):
            grid = self.positions(rows, columns).reshape(1, rows, columns, -1)
            grids[rows, columns] = functional.pad(grid, (0, 0, 0, width - columns, 0, height - rows))
        return torch.cat([grids[size] for size in sizes]).flatten(1, 2)

    def _look(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        last = self.blocks[-1]
        assert isinstance(last, Block)
        return last.attn.keys_and_first_row(last.norm1(tokens), mask)

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=INITIAL_DEVIATION)
        nn.init.trunc_normal_(self.cls_token, std=INITIAL_DEVIATION)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INITIAL_DEVIATION)
                nn.init.zeros_(module.bias)


def cells_within(cells: Tensor, height: int, width: int) -> Tensor:
    """(B, 2) rows and columns of cells -> (B, height, width) bool, True in the upper left part of that size."""
    rows = torch.arange(height, device=cells.device) < cells[:, :1]
    columns = torch.arange(width, device=cells.device) < cells[:, 1:]
    return rows[:, :, None] & columns[:, None]
