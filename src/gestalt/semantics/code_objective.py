"""What codes of a batch are judged by: correspondences of features (STEGO) and of depth (DepthG)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.config.codes import CodeSettings, DepthGuidanceSettings
from gestalt.semantics.correspondence import (
    Correlations,
    centre_correlations,
    correspondence_losses,
    draw_positions,
    measure_shifts,
    pair_up,
    paired_products,
    sample_positions,
)
from gestalt.semantics.depth_correlation import (
    decayed,
    decayed_side,
    decayed_side_as_published,
    depth_correlations,
    depth_loss,
    sample_depth,
    sample_depth_as_published,
    scale_depth,
)
from gestalt.semantics.farthest_points import (
    back_project,
    back_project_as_published,
    cells_to_positions,
    cells_to_positions_as_published,
    farthest_points,
)

# The kinds of pairs, in the order of `pair_up`; all strangers are one kind.
KINDS = ("self", "neighbour", "random")
# Bins of the histograms of correlations, from -1 to 1.
N_BINS = 64


@dataclass(frozen=True, eq=False)
class Batch:
    """Anchors, then a neighbour of each.

    Attributes:
        features: (2B, D, h, w) float, geometry last.
        nearness: (2B, h, w) float, inverse depth, 1/m, 0 where it is unknown.
        focal: (2B,) float, cells.
        centres: (2B, 2) float, principal points (x, y), cells.
        derangements: (n, B) int64, on the device of the features.
    """

    features: Tensor
    nearness: Tensor
    focal: Tensor
    centres: Tensor
    derangements: Tensor


@dataclass(frozen=True, eq=False)
class Judgement:
    """Losses of a batch.

    Attributes:
        losses: Unweighted, by kind of pair, and ``depth`` where it has weight.
        total: Their weighted sum, with gradient.
        targets: (2 + n, B, P, P) float, what code correlations were compared with, before the shift.
        codes: (2 + n, B, P, P) float, code correlations without gradient.
    """

    losses: dict[str, Tensor]
    total: Tensor
    targets: Tensor
    codes: Tensor


class CodeObjective:
    """The weighted losses of a training.

    Args:
        settings: Section ``codes``.
        n_geometry: Channels at the end of the features that are geometry.
        shifts: Of the three kinds of pairs; None takes those of the settings.
    """

    def __init__(
        self, settings: CodeSettings, n_geometry: int, shifts: tuple[float, float, float] | None = None
    ) -> None:
        own = settings.correspondence
        self._settings, self._n_geometry = settings, n_geometry
        self.shifts = shifts or (own.self_shift, own.neighbour_shift, own.random_shift)
        self._weights = (own.self_weight, own.neighbour_weight, own.random_weight)

    def judge(self, batch: Batch, codes: Tensor, step: int, generator: torch.Generator) -> Judgement:
        """Losses of the codes of a batch.

        Args:
            batch: What the codes are of.
            codes: (2B, dimension, h, w) float.
            step: Optimiser steps so far; weight, shift and number of positions decay with it.
            generator: CPU generator of the positions.
        """
        own, depth = self._settings.correspondence, self._settings.depth
        positions = self.draw_positions(batch, step, generator)
        targets = self.targets(batch, positions)
        correlations = Correlations(targets, self._correlate(codes, positions, batch.derangements))
        shifts = targets.new_tensor(self._of_pairs(self.shifts, len(targets)))
        terms = correspondence_losses(correlations, shifts, own.clamp_high)
        losses = dict(zip(KINDS, (terms[0], terms[1], terms[2:].mean()), strict=True))
        total = torch.stack([weight * losses[kind] for kind, weight in zip(KINDS, self._weights)]).sum()
        if depth.weight:
            losses["depth"] = self._depth_loss(batch, positions, correlations.codes[0], step)
            total = total + decayed(depth.weight, depth.decay, step, depth.decay_every) * losses["depth"]
        return Judgement(
            {name: value.detach() for name, value in losses.items()},
            total,
            targets,
            correlations.codes.detach(),
        )

    @torch.no_grad()
    def targets(self, batch: Batch, positions: Tensor) -> Tensor:
        """(2 + n, B, P, P) float: feature correlations, centred where the settings say so."""
        n_features = batch.features.shape[1] - self._n_geometry
        own = self._settings.correspondence
        features = batch.features if own.geometry else batch.features[:, :n_features]
        correlations = self._correlate(features, positions, batch.derangements)
        return centre_correlations(correlations) if own.centring else correlations

    def draw_positions(self, batch: Batch, step: int, generator: torch.Generator) -> Tensor:
        """(3B, P, 2) float: positions in the anchors, in their neighbours, and in the anchors as strangers."""
        side, depth = self._settings.correspondence.positions, self._settings.depth
        anchors = len(batch.features) // 2
        device = batch.features.device
        if depth.sampling == "random":
            return draw_positions(3 * anchors, side * side, generator).to(device)
        shrink = decayed_side_as_published if depth.as_published else decayed_side
        side = shrink(side, depth.positions_decay, step, depth.positions_decay_every)
        nearness, focal, centres = (
            torch.cat([values, values[:anchors]]) for values in (batch.nearness, batch.focal, batch.centres)
        )
        _, h, w = nearness.shape
        known = (nearness > 0).flatten(1)
        if depth.as_published:
            cells = farthest_points(back_project_as_published(nearness), known, side * side, generator)
            return cells_to_positions_as_published(cells, h, w)
        cells = farthest_points(back_project(nearness, focal, centres), known, side * side, generator)
        return cells_to_positions(cells, h, w)

    def _correlate(self, maps: Tensor, positions: Tensor, derangements: Tensor) -> Tensor:
        anchors = len(maps) // 2
        sampled = sample_positions(torch.cat([maps, maps[:anchors]]), positions)
        # Before they are paired: strangers would be normalised once for each derangement.
        both = functional.normalize(sampled, dim=1)
        own, neighbours, strangers = both.reshape(3, anchors, *both.shape[1:])
        return paired_products(own, pair_up(own, neighbours, strangers, derangements))

    def _depth_loss(self, batch: Batch, positions: Tensor, codes: Tensor, step: int) -> Tensor:
        depth, anchors = self._settings.depth, len(codes)
        target, known = depth_targets(batch.nearness[:anchors], positions[:anchors], depth)
        shift = decayed(depth.shift, depth.decay, step, depth.decay_every)
        return depth_loss(target, known, codes, shift, self._settings.correspondence.clamp_high)

    def _of_pairs(self, values: tuple[float, float, float], pairs: int) -> list[float]:
        return [*values[:2], *[values[2]] * (pairs - 2)]


@torch.no_grad()
def depth_targets(
    nearness: Tensor, positions: Tensor, settings: DepthGuidanceSettings
) -> tuple[Tensor, Tensor]:
    """Depth correlations of a crop with itself.

    Args:
        nearness: (B, h, w) float, inverse depth, 1/m, 0 where it is unknown.
        positions: (B, P, 2) float, where codes are sampled.
        settings: Section ``codes.depth``.

    Returns:
        (B, P, P) float in [0, 1], and (B, P) bool, whether depth is known.
    """
    depth = scale_depth(nearness, settings.scale)
    if settings.as_published:
        values, known = sample_depth_as_published(depth, round(positions.shape[1] ** 0.5))
        return depth_correlations(values, "product"), known
    values, known = sample_depth(depth, nearness > 0, positions)
    return depth_correlations(values, settings.target), known


def measured_shifts(targets: list[Tensor], settings: CodeSettings) -> tuple[float, float, float]:
    """Shifts that the shares of the settings lie below.

    Args:
        targets: Of some batches, from ``CodeObjective.targets``.
        settings: Section ``codes``.

    Returns:
        For pairs of a crop with itself, with a neighbour and with a stranger.
    """
    own = settings.correspondence
    # One derangement of each batch: as many random pairs as others.
    kinds = torch.stack([torch.cat([target[kind].flatten() for target in targets]) for kind in range(3)])
    shares = torch.tensor([own.self_share, own.neighbour_share, own.random_share])
    first, second, third = measure_shifts(kinds, shares).tolist()
    return first, second, third


def count_correlations(judgements: Sequence[Judgement]) -> dict[str, dict[str, list[int]]]:
    """Histograms of targets and code correlations, for each kind of pair: counts in N_BINS bins from -1 to 1."""
    counts: dict[str, dict[str, list[int]]] = {}
    for what in ("targets", "codes"):
        values = [getattr(judgement, what) for judgement in judgements]
        for place, kind in enumerate(KINDS):
            chosen = [value[place] if place < 2 else value[2:] for value in values]
            joined = torch.cat([part.flatten() for part in chosen]).clamp(-1, 1)
            histogram = torch.histc(joined, N_BINS, -1, 1)
            counts.setdefault(kind, {})[what] = [int(count) for count in histogram.cpu()]
    return counts
