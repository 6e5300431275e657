"""Is a self-distillation still learning? Measures of collapse, and the reason to stop when they stay bad.

A teacher that answers everything alike, or a backbone whose tokens are all alike, has a loss that looks fine. The
measures look at the teacher; the limits are applied to rows of the curve, so that a resumed training judges as an
uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.errors import DataError

if TYPE_CHECKING:
    from gestalt.config.distillation import MonitorSettings
    from gestalt.features.distillation import Answers

NAME = "distillation"
MEASURES = (
    "teacher_entropy",
    "mean_entropy",
    "spread",
    "rank",
    "token_spread",
    "attention_entropy",
    "place_entropy",
    "place_mean_entropy",
    "place_spread",
)
HEADS = ("", "place_")
# Vectors that spread, entropies and rank are measured on: all that a batch has, up to this many.
MOST_VECTORS = 2048


@torch.no_grad()
def measure(answers: Answers, distributions: Tensor, place_distributions: Tensor | None) -> dict[str, Tensor]:
    """The measures of a batch, scalars on its device.

    Args:
        answers: The teacher's, with attention.
        distributions: (2, B, K), the teacher's for the global crops.
        place_distributions: (2, B, P, K), for places; None without the dense term, whose measures are left out then.
    """
    measures = _of_head(answers.logits, distributions, "")
    if place_distributions is not None and answers.place_logits is not None:
        measures |= _of_head(answers.place_logits, place_distributions, "place_")
    assert answers.attention is not None
    return measures | {
        "rank": effective_rank(answers.cls.flatten(0, -2)),
        "token_spread": token_spread(answers.tokens.flatten(0, 1)),
        "attention_entropy": attention_entropy(answers.attention.flatten(0, 1)),
    }


def entropy_share(distributions: Tensor) -> Tensor:
    """Mean entropy of distributions (..., K) as a share of log(K), which uniform ones have."""
    entropies = torch.special.entr(distributions.float()).sum(-1)
    return torch.mean(entropies) / math.log(distributions.shape[-1])


def effective_rank(features: Tensor) -> Tensor:
    """In how many directions vectors (N, D) differ: exp of the entropy of their covariance's eigenvalues.

    NaN where a vector is not finite.

    Source:
        Roy and Vetterli, "The effective rank" (EUSIPCO 2007), of the covariance.
    """
    values = features[:MOST_VECTORS].double()
    centred = values - values.mean(0)
    if not bool(centred.isfinite().all()):
        return torch.full((), math.nan, device=features.device)
    eigenvalues = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0)
    total = eigenvalues.sum()
    shares = torch.where(total > 0, eigenvalues / total.clamp(min=1e-300), torch.zeros_like(eigenvalues))
    return torch.where(total > 0, torch.special.entr(shares).sum().exp(), torch.zeros_like(total)).float()


def token_spread(tokens: Tensor) -> Tensor:
    """Mean over images (N, D, h, w) of 1 - |mean unit token|^2: 0 where all cells of an image say the same."""
    units = functional.normalize(tokens.float().flatten(2), dim=1)
    return (1 - units.mean(2).square().sum(1)).mean()


def attention_entropy(attention: Tensor) -> Tensor:
    """Mean entropy of what CLS looks at, (N, heads, h, w), among cells, as a share of log(cells)."""
    cells = attention.float().flatten(2)
    return entropy_share(cells / cells.sum(-1, keepdim=True).clamp(min=1e-30))


def same_sequence_share(features: Tensor, sequences: Sequence[str]) -> tuple[float, float]:
    """How often the nearest other image is of the same sequence, and how often a random one would be.

    Args:
        features: (N, D) of images, at least two.
        sequences: Their N names.
    """
    units = functional.normalize(features.float(), dim=1)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(sequences))}
    own = torch.tensor([numbers[name] for name in sequences], device=features.device)
    similarity = units @ units.T
    similarity.fill_diagonal_(-math.inf)
    found = (own[similarity.argmax(1)] == own).float().mean()
    chance = ((own[:, None] == own).float().sum(1) - 1).mean() / (len(own) - 1)
    return float(found), float(chance)


def check_curve(curve: Sequence[Mapping[str, float]], settings: MonitorSettings, n_outputs: int) -> None:
    """Stop a training whose last rows all break a limit.

    Args:
        curve: Rows with ``step``, ``views`` (the loss between crops) and the measures; those of a head that there is
            none of are left out.
        settings: The limits.
        n_outputs: Logits K of a head.

    Raises:
        DataError: With the limit, what was measured, and what to change.
    """
    rows = [row for row in curve[-settings.patience :] if row["step"] > settings.start_step]
    if len(rows) < settings.patience:
        return
    for name, is_broken, limit, reason in _limits(settings, n_outputs):
        values = [row[name] for row in rows if name in row]
        if len(values) == len(rows) and all(is_broken(value) for value in values):
            raise DataError(
                f"{NAME}: stopped after step {int(rows[-1]['step'])}: {reason}. {name} was {values[-1]:.4g} "
                f"(limit {limit:.4g}) and beyond its limit in the last {len(rows)} rows of the curve. The last state "
                "is kept; delete it to start again with other settings"
            )


Limit = tuple[str, Callable[[float], bool], float, str]


def _limits(settings: MonitorSettings, n_outputs: int) -> list[Limit]:
    """Name of the measure, whether a value is beyond the limit, the limit, and what that means."""

    def below(limit: float) -> Callable[[float], bool]:
        return lambda value: value < limit

    def above(limit: float) -> Callable[[float], bool]:
        return lambda value: value > limit

    advice = f"raise {NAME}.temperature.teacher_first, or lower {NAME}.optimiser.learning_rate"
    limits: list[Limit] = []
    for head in HEADS:
        whom = "crops" if head == "" else "places"
        limits += [
            (
                f"{head}mean_entropy",
                below(settings.min_teacher_entropy),
                settings.min_teacher_entropy,
                f"the teacher gives nearly all {whom} the same answer; {advice}",
            ),
            (
                f"{head}spread",
                below(settings.min_spread),
                settings.min_spread,
                f"the teacher's logits do not differ between {whom}, so the centre takes them all away; {advice}",
            ),
            (
                "teacher_entropy" if head == "" else "place_entropy",
                above(settings.max_teacher_entropy),
                settings.max_teacher_entropy,
                f"the teacher's answers for {whom} are uniform; lower {NAME}.temperature.teacher",
            ),
        ]
    loss = settings.max_loss * math.log(n_outputs)
    return [
        *limits,
        (
            "rank",
            below(settings.min_rank),
            settings.min_rank,
            f"features of all images lie in too few directions; lower {NAME}.optimiser.learning_rate",
        ),
        (
            "token_spread",
            below(settings.min_token_spread),
            settings.min_token_spread,
            f"all cells of an image have the same features; raise {NAME}.dense.weight",
        ),
        (
            "attention_entropy",
            above(settings.max_attention_entropy),
            settings.max_attention_entropy,
            f"CLS looks at all cells alike; raise {NAME}.optimiser.learning_rate or train longer",
        ),
        (
            "views",
            above(loss),
            loss,
            f"the loss between crops is not below that of a student that knows nothing; "
            f"lower {NAME}.optimiser.learning_rate",
        ),
    ]


def _of_head(logits: Tensor, distributions: Tensor, prefix: str) -> dict[str, Tensor]:
    vectors = logits.flatten(0, -2).float()
    step = -(-len(vectors) // MOST_VECTORS)
    answers = distributions.flatten(0, -2)[::step]
    return {
        f"{prefix or 'teacher_'}entropy": entropy_share(answers),
        f"{prefix}mean_entropy": entropy_share(answers.mean(0)),
        f"{prefix}spread": vectors[::step].std(0).mean(),
    }
