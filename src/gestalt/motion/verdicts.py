"""What became of the masks of all runs: which of them are one object, and which test ended each object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from gestalt.config.motion import MotionSettings
from gestalt.motion.ensemble import Candidates, mask_iou
from gestalt.motion.object_filters import ObjectMask
from gestalt.motion.rigid_objects import RigidObjects

KEPT = "kept"
FILTERED = "filtered"
INCONSISTENT = "inconsistent"
SUPPRESSED = "suppressed"

# What only touches is not suppression.
TOUCHING_IOU = 0.05


@dataclass(frozen=True)
class Verdict:
    """Masks of several runs that show one object, and how far the object came.

    Attributes:
        number: From 1, kept objects first.
        members: Indices of the masks in ``Candidates``, the best first: its numbers are those below.
        runs: The runs that found it, from 0, in order.
        consistency: In runs.
        score: After Matrix NMS.
        outcome: ``kept``, ``filtered`` (dropped at full resolution), ``inconsistent`` or ``suppressed``.
        reason: Why it is not kept, in words; empty where it is.
        proposals: Ids in the instance map that it became.
    """

    number: int
    members: tuple[int, ...]
    runs: tuple[int, ...]
    consistency: float
    score: float
    outcome: str
    reason: str
    proposals: tuple[int, ...]


def judge_candidates(found: RigidObjects, settings: MotionSettings) -> list[Verdict]:
    """Group the masks of all runs into objects and say what became of each.

    A mask joins the first object whose best mask it overlaps by ``ensemble.detection_iou``.

    Args:
        found: What was found in a frame.
        settings: Section ``motion`` that it was found with.

    Returns:
        Kept objects, then filtered ones, then the others by score and consistency.
    """
    candidates = found.candidates
    if candidates is None or len(candidates.run) == 0:
        return []
    overlap = mask_iou(candidates.masks).cpu().numpy()
    run, kept = candidates.run.cpu().tolist(), candidates.kept.cpu().tolist()
    consistency, scores = candidates.consistency.cpu().tolist(), candidates.scores.cpu().tolist()
    groups = _group(overlap, kept, settings.ensemble.detection_iou)
    origins = _origins(found, candidates)
    judged = []
    for members in groups:
        best = members[0]
        proposals = tuple(number for number, origin in origins.items() if origin == best)
        outcome, reason = KEPT, ""
        if kept[best] and not proposals:
            outcome, reason = FILTERED, _filter_reason(best, found, settings)
        elif not kept[best]:
            outcome, reason = _ensemble_verdict(best, candidates, settings)
        judged.append((members, outcome, reason, proposals))
    order = {KEPT: 0, FILTERED: 1}
    judged.sort(key=lambda entry: (order.get(entry[1], 2), -scores[entry[0][0]], -consistency[entry[0][0]]))
    numbers = {members[0]: number for number, (members, *_) in enumerate(judged, start=1)}
    return [
        Verdict(
            numbers[members[0]],
            members,
            tuple(sorted({run[member] for member in members})),
            consistency[members[0]],
            scores[members[0]],
            outcome,
            reason + _suppressor(members[0], overlap, kept, numbers) if outcome == SUPPRESSED else reason,
            proposals,
        )
        for members, outcome, reason, proposals in judged
    ]


def _group(overlap: npt.NDArray[np.float32], kept: list[bool], least_iou: float) -> list[tuple[int, ...]]:
    """Indices of masks that show one object; kept masks open objects first, the others in their order."""
    leaders = [index for index, passed in enumerate(kept) if passed]
    members: dict[int, list[int]] = {leader: [leader] for leader in leaders}
    for index, passed in enumerate(kept):
        if passed:
            continue
        if leaders and overlap[index, leaders].max() >= least_iou:
            members[leaders[int(overlap[index, leaders].argmax())]].append(index)
        else:
            leaders.append(index)
            members[index] = [index]
    return [tuple(group) for group in members.values()]


def _origins(found: RigidObjects, candidates: Candidates) -> dict[int, int]:
    """The kept candidate that each proposal shares most pixels with, by the proposal's id."""
    shared: dict[int, tuple[int, int]] = {}
    for index in candidates.kept.nonzero()[:, 0].tolist():
        fate = found.fates.get(index)
        if isinstance(fate, str):
            continue
        ids = found.instance_map[_full_mask(fate, candidates, index, found.instance_map.shape)]
        for number, n_px in zip(*np.unique(ids[ids > 0], return_counts=True), strict=True):
            shared[int(number)] = max(shared.get(int(number), (0, -1)), (int(n_px), index))
    return {number: index for number, (_, index) in sorted(shared.items())}


def _full_mask(
    fate: ObjectMask | None, candidates: Candidates, index: int, shape: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """(H, W) bool: a candidate's mask at full resolution, from its cells where it was not drawn."""
    if fate is not None:
        mask = np.zeros(shape, np.bool_)
        mask[fate.rows, fate.columns] = fate.cost < 0
        return mask
    cells = candidates.masks[index][None, None].float()
    enlarged = torch.nn.functional.interpolate(cells, shape, mode="nearest")[0, 0]
    return np.asarray(enlarged.cpu().numpy() > 0, np.bool_)


def _filter_reason(index: int, found: RigidObjects, settings: MotionSettings) -> str:
    """Why a kept candidate is no proposal: what it was told at full resolution, or the first limit it fails."""
    fate, filters = found.fates.get(index), settings.filters
    if isinstance(fate, str):
        return fate
    if fate is not None:
        mask = fate.cost < 0
        if (area := int(mask.sum())) < filters.min_area_px:
            return f"{area} px < {filters.min_area_px}"
        if found.ego_residual is not None:
            # Pixels without a consistent measurement have no deviation.
            share = float(np.isfinite(found.ego_residual[fate.rows, fate.columns][mask]).mean())
            if share < filters.min_measured_share:
                return f"measured in {share:.0%} < {filters.min_measured_share:.0%}"
    return f"below {filters.min_surface_m2:g} m², at the border, or covered"


def _ensemble_verdict(index: int, candidates: Candidates, settings: MotionSettings) -> tuple[str, str]:
    """Which of the ensemble's two tests a mask failed."""
    needed = settings.ensemble.consistency_share * settings.runs
    consistency, score = float(candidates.consistency[index]), float(candidates.scores[index])
    if consistency < needed - 1e-4:
        return INCONSISTENT, f"consistency {consistency:.1f} < {needed:.1f}"
    return SUPPRESSED, f"score {score:.2f} < {settings.ensemble.nms_score:g}"


def _suppressor(
    index: int, overlap: npt.NDArray[np.float32], kept: list[bool], numbers: dict[int, int]
) -> str:
    """The kept object that a mask overlaps most, in words; nothing where it overlaps none."""
    rivals = [other for other, passed in enumerate(kept) if passed]
    if not rivals:
        return ""
    rival = rivals[int(overlap[index, rivals].argmax())]
    iou = float(overlap[index, rival])
    return f", overlaps {numbers[rival]} (IoU {iou:.2f})" if iou > TOUCHING_IOU else ""
