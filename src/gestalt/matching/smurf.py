"""SMURF's loss of a batch: from crops of pairs and a network to the losses that a step adds up.

The network sees colours that were changed; the losses look at the colours as they are. Every pair is matched in
both directions, and the losses are means over both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gestalt.matching.census import census_transform, photometric_losses
from gestalt.matching.coarse_start import (
    mean_lengths,
    shrink_displacements,
    shrink_factor,
    shrink_images,
    shrink_positions,
)
from gestalt.matching.colour_changes import ColourChange, Rectangle, change_colours, erase
from gestalt.matching.crop_placement import (
    Placement,
    frame_bounds,
    stored_positions,
    view_displacements,
    view_images,
)
from gestalt.matching.occlusion import sample_batch, targets, visibility
from gestalt.matching.self_supervision import (
    self_supervision_loss,
    student_displacements,
    student_view,
    teaching_weight,
    trust,
)
from gestalt.matching.smoothness import smoothness_losses

if TYPE_CHECKING:
    from gestalt.config.optical_flow import CropSettings, OpticalFlowSettings

# First images, second images, number of updates -> displacements after every update.
Network = Callable[[Tensor, Tensor, int], list[Tensor]]


@dataclass(frozen=True)
class Augmentation:
    """What happens to a pair.

    Attributes:
        placement: Which part of it is seen.
        first: Change of the first image's colours.
        second: Change of the second image's colours.
        erased: What the network does not see of the second image.
    """

    placement: Placement
    first: ColourChange
    second: ColourChange
    erased: tuple[Rectangle, ...]


@dataclass(frozen=True, eq=False)
class CropBatch:
    """Crops of B pairs in both directions: the first half goes from first to second, the other half back.

    Attributes:
        source: (2B, 3, h, w) float32 RGB in [0, 1], the images that displacements start at.
        seen_source: The same, as the network sees it.
        seen_target: (2B, 3, h, w) float32, the images that displacements lead to, as the network sees it.
        context: (2B, 3, h + 2 rows, w + 2 columns) float32, the target with what lies around the crop.
        margin: Rows and columns of the context at each side.
        bounds: (2B, 4) float32, least x and y, largest x and y that a displacement may lead to, pixels of the crop.
    """

    source: Tensor
    seen_source: Tensor
    seen_target: Tensor
    context: Tensor
    margin: tuple[int, int]
    bounds: Tensor


def turn_round(values: Tensor) -> Tensor:
    """The other direction's values: the halves of a batch exchanged."""
    return torch.cat(values.chunk(2)[::-1])


def make_batch(pairs: Tensor, augmentations: Sequence[Augmentation], settings: CropSettings) -> CropBatch:
    """Crop pairs and change what the network sees.

    Args:
        pairs: (B, 2, H, W, 3) uint8 RGB, on the device of the training.
        augmentations: One per pair.
        settings: Size of the crops and of their context.
    """
    stored, size = (pairs.shape[2], pairs.shape[3]), (settings.height, settings.width)
    margin = (settings.context_rows_px // 2, settings.context_columns_px // 2)
    placements = [augmentation.placement for augmentation in augmentations]
    positions = stored_positions(placements, size, margin, pairs.device)
    first, second = (
        view_images(images.permute(0, 3, 1, 2).to(torch.float32).div(255), positions)
        for images in pairs.unbind(1)
    )
    source = crop_of(torch.cat([first, second]), margin, size)
    crop_first, crop_second = source.chunk(2)
    seen_first = change_colours(crop_first, [augmentation.first for augmentation in augmentations])
    seen_second = change_colours(crop_second, [augmentation.second for augmentation in augmentations])
    seen_second = erase(seen_second, [augmentation.erased for augmentation in augmentations])
    seen = torch.cat([seen_first, seen_second])
    bounds = frame_bounds(placements, stored, size, margin, pairs.device)
    return CropBatch(
        source=source,
        seen_source=seen,
        seen_target=turn_round(seen),
        context=torch.cat([second, first]),
        margin=margin,
        bounds=bounds.repeat(2, 1),
    )


def shrink_batch(batch: CropBatch, factor: int) -> CropBatch:
    """The batch for the losses, with images that are smaller by ``factor``; what the network sees stays as it is.

    Args:
        batch: Crops whose sides are multiples of ``factor``.
        factor: 1 returns the batch itself.
    """
    if factor == 1:
        return batch
    (rows, columns), (height, width) = batch.margin, batch.context.shape[-2:]
    # What is cut off, so that squares of the context lie on those of the crop.
    above, left = rows % factor, columns % factor
    context = batch.context[..., above : height - above, left : width - left]
    return replace(
        batch,
        source=shrink_images(batch.source, factor),
        context=shrink_images(context, factor),
        margin=(rows // factor, columns // factor),
        bounds=shrink_positions(batch.bounds, factor),
    )


def crop_of(context: Tensor, margin: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The middle (..., h, w) of a context."""
    (rows, columns), (height, width) = margin, size
    return context[..., rows : rows + height, columns : columns + width].contiguous()


def warp_full_image(batch: CropBatch, optical_flow: Tensor) -> tuple[Tensor, Tensor]:
    """The target where displacements lead, also beyond the crop.

    Args:
        batch: Its context is what is sampled.
        optical_flow: (n 2B, 2, h, w) float32, pixels of the crop; n of them for the batch, one after the other.

    Returns:
        (n 2B, 3, h, w) float32 samples; (n 2B, h, w) bool, whether there is image where the displacement leads.
    """
    positions, n = targets(optical_flow), len(optical_flow) // len(batch.context)
    rows, columns = batch.margin
    samples, inside = sample_batch(
        batch.context.repeat(n, 1, 1, 1), positions + positions.new_tensor([columns, rows]).view(1, 2, 1, 1)
    )
    bounds = batch.bounds.repeat(n, 1)[..., None, None]
    least, largest = bounds[:, :2], bounds[:, 2:]
    return samples, inside & ((positions >= least) & (positions <= largest)).all(1)


def smurf_losses(
    network: Network, batch: CropBatch, settings: OpticalFlowSettings, step: int
) -> dict[str, Tensor]:
    """The losses of a step: ``census``, ``smoothness``, ``rest`` and ``self_supervision``, weighted, to be summed.

    Args:
        network: The one that learns.
        batch: Crops of pairs.
        settings: Weights and constants.
        step: Of the training; occlusion and self-supervision start late, and images may be small at first.

    Source:
        SMURF (Stone et al., CVPR 2021): sequence losses over the updates, full-image warping, self-supervision.
        Small images and ``rest`` in the first steps are ours.
    """
    predictions = network(batch.seen_source, batch.seen_target, settings.updates)
    factor = shrink_factor(step, settings.coarse_start)
    judged_batch = shrink_batch(batch, factor)
    pattern = census_transform(judged_batch.source, settings.census)
    # A CPU gains nothing from larger tensors than its caches hold.
    at_once = settings.updates_at_once or (1 if pattern.device.type == "cpu" else len(predictions))
    judged = [
        # Recomputed in the backward pass: the census transform of one update alone is 49 times an image.
        checkpoint(
            partial(_judge, judged_batch, pattern, settings, step, factor),
            *predictions[start : start + at_once],
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for start in range(0, len(predictions), at_once)
    ]
    photometric, smooth = (torch.cat([parts[index] for parts in judged]) for index in (0, 1))
    losses = {
        "census": settings.census.weight * weigh_sequence(photometric, settings.sequence_decay),
        "smoothness": settings.smoothness.weight * weigh_sequence(smooth, settings.sequence_decay),
    }
    # Only as long as images are small: a pull towards rest shortens what the images do speak for.
    rest = settings.coarse_start.rest_weight if factor > 1 else 0.0
    losses["rest"] = (
        rest * weigh_sequence(mean_lengths(predictions), settings.sequence_decay)
        if rest
        else torch.zeros_like(losses["census"])
    )
    weight = teaching_weight(step, settings.self_supervision)
    losses["self_supervision"] = (
        weight * teach(network, batch, settings) if weight else torch.zeros_like(losses["census"])
    )
    return losses


def _judge(
    batch: CropBatch,
    pattern: Tensor,
    settings: OpticalFlowSettings,
    step: int,
    factor: int,
    *predictions: Tensor,
) -> tuple[Tensor, Tensor]:
    """Photometric loss and smoothness of n predictions for the batch, (n,) each, unweighted.

    The batch is smaller than the predictions by ``factor``.
    """
    n = len(predictions)
    forward = shrink_displacements(torch.cat(predictions).float(), factor)
    backward = torch.cat([turn_round(prediction) for prediction in forward.chunk(n)])
    warped, inside = warp_full_image(batch, forward)
    visible = visibility(forward, backward, settings.occlusion, step) * inside
    return (
        photometric_losses(pattern, warped, visible, settings.census).reshape(n, -1).mean(1),
        smoothness_losses(forward, batch.source, settings.smoothness).reshape(n, -1).mean(1),
    )


def teach(network: Network, batch: CropBatch, settings: OpticalFlowSettings) -> Tensor:
    """The unweighted self-supervision: the whole crop in its own colours teaches the middle in changed ones."""
    own = settings.self_supervision
    with torch.no_grad():
        teacher = network(batch.source, turn_round(batch.source), settings.updates)[-1].float()
        taught = student_displacements(teacher, own.margin_px)
        taught_trust = student_view(
            trust(teacher, turn_round(teacher), own.teacher_sigma)[:, None], own.margin_px
        )[:, 0]
    answers = network(
        student_view(batch.seen_source, own.margin_px),
        student_view(batch.seen_target, own.margin_px),
        settings.updates,
    )
    losses = [
        self_supervision_loss(taught, taught_trust, answer.float(), turn_round(answer.float()), own)
        for answer in answers
    ]
    return weigh_sequence(torch.stack(losses), settings.sequence_decay)


def supervised_losses(
    network: Network,
    batch: CropBatch,
    labels: Tensor,
    known: Tensor,
    settings: OpticalFlowSettings,
) -> dict[str, Tensor]:
    """The loss of the second phase, ``supervised``: L1 against labels that the first phase made.

    Args:
        network: The one that learns.
        batch: Crops of pairs; only the direction from first to second is used, which has labels.
        labels: (B, 2, h, w) float32, pixels of the crop.
        known: (B, h, w) bool; unknown and very long displacements teach nothing.
        settings: Weights and limits.
    """
    half = len(labels)
    predictions = network(batch.seen_source[:half], batch.seen_target[:half], settings.updates)
    known = known & (labels.square().sum(1) < settings.multi_frame.max_length_px**2)
    losses = [((prediction.float() - labels).abs() * known[:, None]).mean() for prediction in predictions]
    return {"supervised": weigh_sequence(torch.stack(losses), settings.sequence_decay)}


def crop_labels(
    optical_flow: Tensor, known: Tensor, augmentations: Sequence[Augmentation], settings: CropSettings
) -> tuple[Tensor, Tensor]:
    """Labels of stored images, (B, 2, H, W) and (B, H, W), as labels of the crops of ``make_batch``."""
    placements = [augmentation.placement for augmentation in augmentations]
    positions = stored_positions(placements, (settings.height, settings.width), (0, 0), optical_flow.device)
    return view_displacements(optical_flow, known, positions, placements)


def weigh_sequence(losses: Tensor, decay: float) -> Tensor:
    """Sum of the losses (n,) of all updates: the last counts fully, each earlier one ``decay`` times its next."""
    distance = torch.arange(len(losses) - 1, -1, -1, device=losses.device)
    return (losses * decay**distance).sum()
