"""Settings of the sections ``audit`` (limits of the label table) and ``gate`` (what stops the pipeline)."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import setting


@dataclass(frozen=True)
class AuditSettings:
    """Limits that the labels of a batch should keep; a broken one is a finding, never an exception."""

    max_failed_share: float = setting("critical: largest share of frames that failed", low=0, high=1)
    max_empty_share: float = setting("critical: largest share of frames without any label", low=0, high=1)
    max_no_instance_share: float = setting(
        "warning: largest share of frames in which no instance was found", low=0, high=1
    )
    min_instances: int = setting("critical: fewest instances in the whole batch", low=0)
    max_instances_per_frame: int = setting("warning: most instances that a frame plausibly has", low=1)
    min_mean_coverage: float = setting(
        "critical: smallest mean share of labelled pixels over the frames that have labels", low=0, high=1
    )
    min_frame_coverage: float = setting(
        "warning: smallest share of labelled pixels of a single frame", low=0, high=1
    )
    min_pseudo_classes: int = setting("critical: fewest pseudo-classes in use in the batch", low=1)
    max_class_share: float = setting(
        "critical: largest share of the labelled pixels in one pseudo-class", low=0, high=1
    )
    max_class_drift: float = setting(
        "warning: largest total variation between the class shares of the batch and of all batches together",
        low=0,
        high=1,
    )
    max_instance_share: float = setting(
        "warning: largest share of a frame that one moving instance covers", low=0, high=1
    )
    min_consistency: float = setting(
        "warning: smallest share of the motion runs that vouch for a kept instance", low=0, high=1
    )
    max_depth_m: float = setting("warning: farthest median depth of an instance, metres", low=0)
    max_speed_m_s: float = setting("warning: fastest instance, metres per second", low=0)
    plausible_share: float = setting(
        "share of frames or segments that must keep a per-frame or per-segment limit", low=0, high=1
    )
    examples: int = setting("frame ids listed with a finding", low=0)
    worst_frames: int = setting("frames with pictures on the review page, worst first", low=0)
    picture_width_px: int = setting("width of a review picture; smaller images stay as they are", low=64)


@dataclass(frozen=True)
class GateSettings:
    """What stops the pipeline before training."""

    stop_on: str = setting(
        "the mildest failed expectation that stops: `critical`, `warning` (also the mild ones) or `never`",
        choices=("critical", "warning", "never"),
    )
