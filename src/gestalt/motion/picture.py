"""A sheet that shows one frame's motion from images to proposals, and a strip that shows the gist, for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gestalt.config.frames import FrameSettings
from gestalt.config.motion import MotionSettings
from gestalt.data.records import StereoFrame
from gestalt.motion.examined import Examined, describe_outcome, explain_reason, summarise, why_no_run
from gestalt.motion.object_filters import MONOCULAR
from gestalt.motion.object_panels import (
    MarkedMask,
    coloured_masks,
    instance_masks,
    masks_panel,
    table_panel,
    verdict_rows,
)
from gestalt.motion.page import Placed, compose_page, draw_page, place_beside, place_row
from gestalt.motion.panels import (
    DEVIATION_LIMIT,
    Panel,
    heat_panel,
    image_panel,
    message_panel,
    optical_flow_panel,
    reliability_panel,
)
from gestalt.motion.proposals import FrameProposer
from gestalt.motion.verdicts import FILTERED, INCONSISTENT, KEPT, SUPPRESSED, Verdict, judge_candidates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UInt8Array = npt.NDArray[np.uint8]

COLUMNS, RUN_COLUMNS = 4, 8
# Between the small panels, which have no scale; of a line of a table; of a message across half the page: inches.
RUN_GUTTER, LINE_HEIGHT, MESSAGE_HEIGHT = 0.1, 0.165, 0.5
# Height over width of a message across the page.
MESSAGE_ASPECT = 0.04
# Objects that the table lists; the rest is counted.
MAX_LISTED = 16
STORED = "not needed: optical flow and disparity came with the frame"
ONE_CAMERA = "there is one camera, or only one is used"
VERDICT_COLUMNS = (("object", 0.025), ("runs", 0.11), ("consistency", 0.2), ("score", 0.32), ("verdict", 0.4))
PROPOSAL_COLUMNS = (
    ("id", 0.025),
    ("area", 0.1),
    ("surface", 0.24),
    ("depth", 0.38),
    ("speed", 0.51),
    ("consistency", 0.65),
    ("score", 0.82),
)


def motion_sheet(
    frame: StereoFrame, frames: FrameSettings, motion: MotionSettings, seed: int, device: str = "cpu"
) -> UInt8Array:
    """Everything the stage sees and makes of a frame.

    Args:
        frame: A row of a manifest.
        frames: Section ``frames``.
        motion: Section ``motion``.
        seed: The experiment's seed.
        device: ``runtime.device``.

    Returns:
        (rows, columns, 3) uint8 RGB, see ``compose_sheet``.

    Raises:
        DataError: A file is missing or broken, or a measurement is not finite.
    """
    examined = Examined(frame.frame_id, *FrameProposer(motion, frames, seed, device).examine(frame), motion)
    return draw_page(compose_sheet(examined))


def compose_sheet(examined: Examined) -> Figure:
    """The page of a frame: images, measurements, how far they can be trusted, every run, what was kept and why."""
    height, width = examined.images.left.shape[:2]
    verdicts = judge_candidates(examined.found, examined.settings)
    rows = [
        place_row(_image_panels(examined), COLUMNS, height / width),
        place_row(_measurement_panels(examined), COLUMNS, height / width),
        *_run_rows(examined, verdicts, height / width),
        _verdict_row(examined, verdicts, height / width),
        _proposal_row(examined, verdicts, height / width),
    ]
    title = f"{examined.frame_id}: {describe_outcome(examined)}"
    return compose_page(rows, width, title, summarise(examined))


def compose_strip(examined: Examined) -> Figure:
    """One row for contact sheets: image, optical flow, disparity, deviation, proposals."""
    height, width = examined.images.left.shape[:2]
    flow, disparity, deviation, _ = _measurement_panels(examined)
    colours = _proposal_colours(judge_candidates(examined.found, examined.settings))
    masks = instance_masks(examined.found.instance_map, colours)
    final = masks_panel(describe_outcome(examined), "", examined.images.left, masks)
    panels = [image_panel("left, t", examined.images.left), flow, disparity, deviation, final]
    row = place_row(panels, len(panels), height / width)
    return compose_page([row], width, examined.frame_id, summarise(examined))


def _image_panels(examined: Examined) -> list[Panel]:
    images = examined.images
    missing = STORED if (examined.measurement.disparity > 0).any() else ONE_CAMERA
    return [
        image_panel("left image, t", images.left),
        image_panel("left image, t+1", images.left_next),
        image_panel("right image, t", images.right, missing),
        image_panel("right image, t+1", images.right_next, missing),
    ]


def _measurement_panels(examined: Examined) -> list[Panel]:
    measurement, found = examined.measurement, examined.found
    known = measurement.disparity > 0
    disparity = message_panel("disparity, t", f"not known: {ONE_CAMERA}")
    if known.any():
        values = np.where(known, measurement.disparity, np.nan).astype(np.float32)
        disparity = heat_panel("disparity, t", "warm: near; black: unknown", values, "px")
    title = "deviation from the ego-motion"
    deviation = message_panel(title, f"not known: {why_no_run(examined)}")
    if found.ego_residual is not None:
        note = "motion against the static scene; black: unknown"
        deviation = heat_panel(title, note, found.ego_residual, "std", DEVIATION_LIMIT)
    return [
        optical_flow_panel("optical flow, t to t+1", measurement.optical_flow_forward),
        disparity,
        deviation,
        reliability_panel(
            examined.images.left, found.reliable, examined.settings.reliability.min_reliable_px
        ),
    ]


def _run_rows(examined: Examined, verdicts: Sequence[Verdict], aspect: float) -> list[list[Placed]]:
    """Rows of small panels, one per run; masks of one object have one colour in all of them."""
    found, runs = examined.found, examined.settings.runs
    if found.candidates is None:
        message = message_panel(f"masks of the {runs} runs", f"no run took place: {why_no_run(examined)}")
        return [place_row([message], 1, MESSAGE_ASPECT)]
    masks, run = found.candidates.masks.cpu().numpy(), found.candidates.run.cpu().numpy()
    numbers = {member: entry.number for entry in verdicts for member in entry.members}
    panels = []
    for index in range(runs):
        own = [
            MarkedMask(str(numbers[int(member)]), numbers[int(member)], masks[member])
            for member in np.flatnonzero(run == index)
        ]
        panels.append(_run_panel(examined, index, own))
    return [
        place_row(panels[start : start + RUN_COLUMNS], RUN_COLUMNS, aspect, gutter=RUN_GUTTER)
        for start in range(0, runs, RUN_COLUMNS)
    ]


def _run_panel(examined: Examined, index: int, masks: Sequence[MarkedMask]) -> Panel:
    """What one run found, or in words that it failed."""
    note, settings = "", examined.settings
    part = settings.monocular if settings.source == MONOCULAR else settings.clustering
    least = part.min_background_share
    if examined.found.ego_shares is not None:
        share = float(examined.found.ego_shares[index])
        if share < least:
            message = f"its ego-motion explains {share:.0%} of the cells, {least:.0%} needed"
            return message_panel(f"run {index + 1}: failed", message)
        note = f"ego-motion explains {share:.0%}"
    count = "nothing moves" if not masks else "1 mask" if len(masks) == 1 else f"{len(masks)} masks"
    return masks_panel(f"run {index + 1}: {count}", note, examined.images.left, masks)


def _verdict_row(examined: Examined, verdicts: Sequence[Verdict], aspect: float) -> list[Placed]:
    """Objects that the ensemble kept and dropped, and the table that says why."""
    candidates, left = examined.found.candidates, examined.images.left
    masks = np.zeros((0, 1, 1), np.bool_) if candidates is None else candidates.masks.cpu().numpy()
    panels = []
    for title, note, outcomes in (
        ("agreed by the runs", "kept, and filtered later at full resolution", (KEPT, FILTERED)),
        ("dropped by the ensemble", "runs disagree, or a better mask covers it", (INCONSISTENT, SUPPRESSED)),
    ):
        chosen = coloured_masks(verdicts, masks, outcomes)
        panels.append(masks_panel(f"{title}: {len(chosen)}", note, left, chosen))
    row = place_row(panels, COLUMNS, aspect)
    listed = verdicts[:MAX_LISTED]
    title = f"objects that a run proposed: {len(verdicts)}"
    if len(verdicts) > len(listed):
        title += f", the first {len(listed)} listed"
    if not verdicts:
        why = "no run proposed an object" if candidates is not None else why_no_run(examined)
        return [*row, place_beside(message_panel("objects that a run proposed", why), MESSAGE_HEIGHT)]
    note = "masks of several runs that show the same, the surest first; numbers and colours as in the runs"
    table = table_panel(
        title,
        note,
        VERDICT_COLUMNS,
        verdict_rows(listed, examined.settings.runs),
        [entry.number for entry in listed],
    )
    return [*row, place_beside(table, (len(listed) + 1) * LINE_HEIGHT)]


def _proposal_row(examined: Examined, verdicts: Sequence[Verdict], aspect: float) -> list[Placed]:
    """The final masks, large, and their table."""
    found = examined.found
    colours = _proposal_colours(verdicts)
    note = "the masks that the stage writes, at full resolution; colours of the objects above"
    final = masks_panel(
        f"proposals: {len(found.proposals)}",
        note,
        examined.images.left,
        instance_masks(found.instance_map, colours),
    )
    row = place_row([final], COLUMNS // 2, aspect)
    if not found.proposals:
        return [*row, place_beside(message_panel("no proposals", explain_reason(examined)), MESSAGE_HEIGHT)]
    rows = [
        [
            str(entry.instance),
            f"{entry.area_px} px",
            _quantity(entry.surface_m2, "m²"),
            _quantity(entry.depth_m, "m"),
            _quantity(entry.speed_m_s, "m/s"),
            f"{entry.consistency:.3g} of {examined.settings.runs}",
            f"{entry.score:.2f}",
        ]
        for entry in found.proposals
    ]
    marks = [colours.get(entry.instance, entry.instance) for entry in found.proposals]
    note = "depth and speed are medians; speed is against the static scene"
    table = table_panel("the proposals", note, PROPOSAL_COLUMNS, rows, marks)
    return [*row, place_beside(table, (len(rows) + 1) * LINE_HEIGHT)]


def _quantity(value: float, unit: str) -> str:
    """A number with its unit; a dash where one camera cannot tell."""
    return "–" if math.isnan(value) else f"{value:.1f} {unit}"


def _proposal_colours(verdicts: Sequence[Verdict]) -> dict[int, int]:
    """The number of the object that each proposal was."""
    return {proposal: entry.number for entry in verdicts for proposal in entry.proposals}
