"""From the masks of n runs to the few that runs agree on: consistency score and Matrix NMS."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.config.motion import EnsembleSettings
from gestalt.motion.labelling import RunMasks


@dataclass(frozen=True)
class Candidates:
    """Masks after the ensemble, best first.

    Attributes:
        run: (K,) int64, the run that found each; masks of one run are disjoint.
        masks: (K, h, w) bool.
        votes: (K, h, w) float in [0, 1], share of the runs' matching masks that cover a cell.
        consistency: (K,) float, in runs.
        scores: (K,) float, after Matrix NMS.
        motions: (K, 4, 4).
        kept: (K,) bool: whether the mask passed both tests; the others are for pictures.
    """

    run: Tensor
    masks: Tensor
    votes: Tensor
    consistency: Tensor
    scores: Tensor
    motions: Tensor
    kept: Tensor


def mask_iou(masks: Tensor) -> Tensor:
    """Pairwise IoU (M, M) of (M, h, w) boolean masks."""
    flat = masks.flatten(1).float()
    both = flat @ flat.T
    area = flat.sum(1)
    return both / (area[:, None] + area - both).clamp(min=1)


def consistency_scores(run: Tensor, masks: Tensor, settings: EnsembleSettings) -> Tensor:
    """How many of the runs vouch for each mask, (M,) float.

    ``coverage`` is the published score: the mean over the mask's pixels of how many masks cover them. A large
    merged mask vouches for every small one inside it. ``detections`` counts the runs that have a mask of the
    same object (IoU).

    Args:
        run: (M,) int64.
        masks: (M, h, w) bool, disjoint within a run.
        settings: Which score.
    """
    if settings.consistency == "coverage":
        flat = masks.flatten(1).float()
        return (flat @ flat.sum(0)) / flat.sum(1).clamp(min=1)
    same = mask_iou(masks) >= settings.detection_iou
    found = torch.zeros(len(run), int(run.max()) + 1 if len(run) else 0, device=run.device)
    found.scatter_reduce_(1, run.expand(len(run), -1), same.float(), "amax")
    return found.sum(1)


def matrix_nms(masks: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """Decayed scores of masks sorted by descending score.

    Args:
        masks: (M, h, w) bool, best first.
        scores: (M,) float.
        sigma: Width of the Gaussian decay.

    Returns:
        (M,) float.

    Source:
        SOLOv2 (Wang et al., NeurIPS 2020): decay_j = min over i of exp(-sigma IoU_ij^2) / exp(-sigma
        comp_i^2), with comp_i the largest IoU of i with a better mask.
    """
    if len(masks) == 0:
        return scores
    iou = mask_iou(masks).triu(1)
    worst = iou.amax(0)
    decay = torch.exp(-sigma * (iou**2 - worst[:, None] ** 2))
    # Only better masks suppress.
    better = torch.ones_like(iou).triu(1) > 0
    return scores * torch.where(better, decay, 1.0).amin(0)


def combine_runs(found: RunMasks, runs: int, settings: EnsembleSettings) -> Candidates:
    """Keep the masks that enough runs agree on, one of each object.

    Args:
        found: Masks of all runs.
        runs: n.
        settings: Consistency and suppression.
    """
    consistency = consistency_scores(found.run, found.masks, settings)
    agreed = consistency >= settings.consistency_share * runs - 1e-4
    # The order is total, so equal scores cannot depend on the device.
    order = torch.argsort(torch.where(agreed, 1 + found.scores, found.scores), descending=True, stable=True)
    masks, agreed = found.masks[order], agreed[order]
    scores = torch.where(agreed, found.scores[order], 0.0)
    n_agreed = int(agreed.sum())
    scores[:n_agreed] = matrix_nms(masks[:n_agreed], scores[:n_agreed], settings.nms_sigma)
    kept = agreed & (scores >= settings.nms_score)
    same = (mask_iou(masks) >= settings.detection_iou).float()
    votes = (same @ masks.flatten(1).float()) / same.sum(1, keepdim=True).clamp(min=1)
    return Candidates(
        found.run[order],
        masks,
        votes.view_as(masks),
        consistency[order],
        scores,
        found.motions[order],
        kept,
    )
