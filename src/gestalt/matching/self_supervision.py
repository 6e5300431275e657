"""The network as its own teacher: what it sees in the whole crop, it should see in a part of it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.errors import ConfigError
from gestalt.matching.occlusion import round_trip
from gestalt.matching.smoothness import soft_absolute

if TYPE_CHECKING:
    from gestalt.config.optical_flow import SelfSupervisionSettings


def student_view(values: Tensor, margin_px: int) -> Tensor:
    """The middle of ``values`` at the size of the whole: (B, C, H, W) -> (B, C, H, W), bilinear.

    Args:
        values: (B, C, H, W) float.
        margin_px: What is cut off at each side.

    Raises:
        ConfigError: Nothing would be left.
    """
    height, width = values.shape[-2:]
    if 2 * margin_px >= min(height, width):
        raise ConfigError(
            f"optical_flow.self_supervision.margin_px must leave something of a crop of {height} x {width} px. "
            f"Got: {margin_px}"
        )
    middle = values[..., margin_px : height - margin_px, margin_px : width - margin_px]
    return functional.interpolate(middle, (height, width), mode="bilinear", align_corners=False)


def student_displacements(optical_flow: Tensor, margin_px: int) -> Tensor:
    """Displacements of the whole crop in the student's view: cut, resized, in the view's larger pixels."""
    height, width = optical_flow.shape[-2:]
    scale = optical_flow.new_tensor([width / (width - 2 * margin_px), height / (height - 2 * margin_px)])
    return student_view(optical_flow, margin_px) * scale.view(1, 2, 1, 1)


def trust(forward: Tensor, backward: Tensor, sigma: float) -> Tensor:
    """How much a displacement is believed: 1 where going there and back ends at the start, towards 0 elsewhere.

    Args:
        forward: (B, 2, H, W) float32, pixels; no gradient flows into it.
        backward: (B, 2, H, W) float32, pixels, of the other image.
        sigma: Share of the image's diagonal at which trust has fallen to 1 / e.

    Returns:
        (B, H, W) float32 in [0, 1]; 0 where the target lies outside.
    """
    forward, backward = forward.detach(), backward.detach()
    height, width = forward.shape[-2:]
    error, _, inside = round_trip(forward, backward)
    return torch.exp(-error / (sigma**2 * (height**2 + width**2))) * inside


def teaching_weight(step: int, settings: SelfSupervisionSettings) -> float:
    """Weight of the loss at a step: 0 until it starts, then linearly up to ``weight``."""
    ramp = (step - settings.start_step) / max(1, settings.ramp_steps)
    return settings.weight * min(1.0, max(0.0, ramp))


def self_supervision_loss(
    taught: Tensor,
    taught_trust: Tensor,
    student: Tensor,
    student_reverse: Tensor,
    settings: SelfSupervisionSettings,
) -> Tensor:
    """How far the student is from its teacher, where the teacher can be trusted and the student cannot.

    Args:
        taught: (B, 2, H, W) float32, the teacher's displacements in the student's view; they get no gradient.
        taught_trust: (B, H, W) float32 in [0, 1], in the student's view.
        student: (B, 2, H, W) float32, the student's displacements.
        student_reverse: (B, 2, H, W) float32, the student's displacements of the other image.
        settings: Constants of the loss.

    Returns:
        Scalar, the mean over all pixels and both components.

    Source:
        SelFlow (Liu et al., CVPR 2019), UFlow, SMURF. The penalty's value at 0 is taken off.
    """
    weight = taught_trust.detach() * (1 - trust(student, student_reverse, settings.student_sigma))
    difference = soft_absolute(taught.detach() - student, settings.softness_px)
    return (weight[:, None] * difference).mean()
