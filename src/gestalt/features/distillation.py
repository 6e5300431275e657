"""Self-distillation without labels: heads, the losses between crops and between places, the centre, the schedules.

A student sees all crops of an image and a teacher, its moving average, the global ones; the student learns to answer
as the teacher does for another crop (Caron et al., ICCV 2021).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from gestalt.features.vit import VisionTransformer, VitLayout

if TYPE_CHECKING:
    from gestalt.config.distillation import DistillationSettings, ProjectionSettings


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network says of crops of B images.

    Attributes:
        logits: (V, B, K), of each crop, global ones first.
        cls: (2, B, D), CLS of the global crops after the final norm.
        tokens: (2, B, D, h, w), their cells after the final norm.
        place_logits: (2, B, P, K), of places in the global crops; None without the dense term.
        attention: (2, B, heads, h, w), what CLS looks at in the last block; None unless asked for.
    """

    logits: Tensor
    cls: Tensor
    tokens: Tensor
    place_logits: Tensor | None
    attention: Tensor | None


class ProjectionHead(nn.Module):
    """Tokens to logits: three layers, a unit vector, and its cosines with as many directions as there are outputs.

    Args:
        dimension: Length D of a token.
        settings: Sizes.

    Source:
        DINO's head. The weight-normalised last layer whose norms stay at 1 is written as what it computes: cosines.
        Initial weights have a deviation of 1 / sqrt(inputs), which at DINO's width of 2048 is its 0.02 (0.022): with
        0.02 at a quarter of the width the vector before its normalisation is so short that gradients explode.
    """

    def __init__(self, dimension: int, settings: ProjectionSettings) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dimension, settings.hidden),
            nn.GELU(),
            nn.Linear(settings.hidden, settings.hidden),
            nn.GELU(),
            nn.Linear(settings.hidden, settings.bottleneck),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)
        self.directions = nn.Parameter(torch.empty(settings.outputs, settings.bottleneck))
        nn.init.kaiming_uniform_(self.directions, a=math.sqrt(5))

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) -> (..., K), in [-1, 1]."""
        unit = functional.normalize(self.layers(tokens), dim=-1)
        return functional.linear(unit, functional.normalize(self.directions, dim=1))


class DistilledNetwork(nn.Module):
    """Vision transformer with the heads that the training throws away.

    Args:
        settings: Section ``distillation``.
        drop_path: Probability of stochastic depth; 0 for the teacher.
    """

    def __init__(self, settings: DistillationSettings, drop_path: float = 0.0) -> None:
        super().__init__()
        self.backbone = VisionTransformer(vit_layout(settings), drop_path)
        width = settings.vit.width
        self.head = ProjectionHead(width, settings.projection)
        self.place_head = ProjectionHead(width, settings.projection) if settings.dense.weight else None

    def forward(
        self,
        global_views: Tensor,
        local_views: Tensor | None,
        places: Tensor | None,
        *,
        attention: bool = False,
    ) -> Answers:
        """Answers for crops.

        Args:
            global_views: (2, B, 3, S, S) float, normalised as the backbone wants it.
            local_views: (L, B, 3, s, s) float, or None.
            places: (2, B, P, 2) float, x and y in the global crops, in [-1, 1]; None without the dense term.
            attention: Say also what CLS looks at.
        """
        n_views, batch = global_views.shape[:2]
        seen = self.backbone(global_views.flatten(0, 1), attention=attention)
        every = [seen.cls]
        if local_views is not None and len(local_views):
            every.append(self.backbone(local_views.flatten(0, 1)).cls)
        together = torch.cat(every)
        place_logits = None
        if self.place_head is not None and places is not None:
            cells = read_places(seen.tokens, places.flatten(0, 1))
            place_logits = self.place_head(cells).unflatten(0, (n_views, batch))
        return Answers(
            logits=self.head(together).unflatten(0, (-1, batch)),
            cls=seen.cls.unflatten(0, (n_views, batch)),
            tokens=seen.tokens.unflatten(0, (n_views, batch)),
            place_logits=place_logits,
            attention=seen.cls_attention.unflatten(0, (n_views, batch)) if attention else None,
        )


def vit_layout(settings: DistillationSettings) -> VitLayout:
    """Sizes of the backbone.

    Raises:
        ConfigError: The heads do not divide the width.
    """
    vit = settings.vit
    return VitLayout(vit.patch_px, vit.width, vit.depth, vit.heads, vit.mlp_ratio, vit.position_grid)


def read_places(tokens: Tensor, places: Tensor) -> Tensor:
    """Tokens at places between cells, bilinear: (N, D, h, w) and (N, P, 2) x, y in [-1, 1] -> (N, P, D)."""
    read = functional.grid_sample(
        tokens.float(), places[:, :, None].float(), padding_mode="border", align_corners=False
    )
    return read.squeeze(3).transpose(1, 2)


def teacher_distribution(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """What the student is to answer: softmax of the centred logits, float32, without gradient.

    Args:
        logits: (..., K).
        centre: (K,), running mean of the teacher's logits; what it always says is not worth learning.
        temperature: Low ones make the distribution sharp.
    """
    return ((logits.detach().float() - centre) / temperature).softmax(-1)


def cross_view_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of every student crop with every teacher crop but itself, nats.

    Args:
        student: (V, B, K) logits; the first G crops are the teacher's.
        teacher: (G, B, K) distributions.
        temperature: The student's.

    Returns:
        Scalar: mean over the G (V - 1) pairs of crops and over images.
    """
    scaled = student.float() / temperature
    n_teacher, n_student = len(teacher), len(student)
    # -sum q log softmax(s) = logsumexp(s) - <q, s>: nothing of the size of all pairs is ever held.
    agreement = torch.einsum("gbk,vbk->gvb", teacher, scaled)
    entropies = (scaled.logsumexp(-1) - agreement).mean(2)
    same = torch.eye(n_teacher, n_student, dtype=torch.bool, device=student.device)
    return entropies.masked_fill(same, 0).sum() / (n_teacher * n_student - min(n_teacher, n_student))


def place_losses(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of either global crop with the other one at the same places, nats.

    Args:
        student: (2, B, P, K) logits.
        teacher: (2, B, P, K) distributions.
        temperature: The student's.

    Returns:
        (B,): mean over places and both directions.
    """
    scaled = student.float() / temperature
    agreement = (teacher.flip(0) * scaled).sum(-1)
    return (scaled.logsumexp(-1) - agreement).mean((0, 2))


def move_centre(centre: Tensor, mean_logits: Tensor, momentum: float) -> None:
    """Let the centre (K,) follow the mean logits (K,) of a step, in place."""
    centre.lerp_(mean_logits.to(centre.dtype), 1 - momentum)


@torch.no_grad()
def move_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Let the teacher's weights follow the student's, in place; they must be alike in shape and order."""
    own: list[Tensor] = list(teacher.parameters())
    torch._foreach_lerp_(own, [value.detach() for value in student.parameters()], 1 - momentum)


@torch.no_grad()
def clip_each(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale each tensor's gradient down to a norm of ``limit``, in place; the norm of all before that.

    Source:
        DINO clips tensor by tensor; a common factor would let one layer slow down all.
    """
    gradients = [value.grad for value in parameters if value.grad is not None]
    norms: Tensor = torch.stack(torch._foreach_norm(gradients))
    factors = (limit / norms.clamp(min=1e-12)).clamp(max=1)
    torch._foreach_mul_(gradients, list(factors.unbind()))
    return norms.square().sum().sqrt()


def cosine(step: int, steps: int, first: float, last: float, warm_up_steps: int = 0) -> float:
    """A value that rises from 0 to ``first`` in a straight line and then goes to ``last`` along half a cosine.

    Args:
        step: From 0 to ``steps`` - 1.
        steps: Of the training, those of the warm-up included.
        first: The value at the end of the warm-up.
        last: The value that the cosine would reach at ``steps``.
        warm_up_steps: Of the straight line; the last of them has ``first``.
    """
    if step < warm_up_steps:
        return first * step / max(1, warm_up_steps - 1)
    share = (step - warm_up_steps) / max(1, steps - warm_up_steps)
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def straight(step: int, steps: int, first: float, last: float) -> float:
    """A value that goes from ``first`` to ``last`` in ``steps`` steps and stays there."""
    return last if step >= steps else first + (last - first) * step / max(1, steps - 1)


def weight_groups(network: nn.Module) -> list[dict[str, object]]:
    """The weights in two groups for the optimiser: those that decay, and biases and norms, which do not."""
    decaying: list[nn.Parameter] = []
    staying: list[nn.Parameter] = []
    for name, value in network.named_parameters():
        (staying if value.ndim == 1 or name.endswith(".bias") else decaying).append(value)
    return [{"params": decaying, "decays": True}, {"params": staying, "decays": False, "weight_decay": 0.0}]
