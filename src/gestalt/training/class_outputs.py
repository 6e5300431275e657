"""Outputs per class: which pseudo-class of a network lies on which class of few labels, and rows copied from it.

Everything else in a network means no class in particular and is copied as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchvision.ops import box_iou

from gestalt.panoptic import VOID
from gestalt.training.batch import stack_samples

if TYPE_CHECKING:
    from gestalt.network.panoptic_model import PanopticModel
    from gestalt.training.sample import TrainingSample

# Part of the names of all weights with a row per class; names are those of network folders.
CLASS_OUTPUT = ".classify."

# Detections from this score have a say, each with its score as weight: below the limit of a prediction there are
# right ones too, and few labels hold few objects.
MIN_SCORE = 0.05
# A detection lies on an object from this IoU of their boxes.
MIN_IOU = 0.5


@dataclass(frozen=True, eq=False)
class Overlaps:
    """How much of each pseudo-class lies on each class.

    Attributes:
        things: (T_old, T_new) float64, scores of the detections of a pseudo-class on objects of a class.
        stuff: (S_old, S_new) float64, probability of a pseudo-class summed over the pixels of a class.
    """

    things: Tensor
    stuff: Tensor


@dataclass(frozen=True)
class ClassOrigins:
    """Where the outputs of each class start.

    Attributes:
        things: Per thing class of the new network the thing index of the old one; None for fresh numbers.
        stuff: The same for stuff classes.
    """

    things: tuple[int | None, ...]
    stuff: tuple[int | None, ...]


@torch.no_grad()
def measure_overlaps(
    network: PanopticModel, samples: Iterable[TrainingSample], *, n_things: int, n_stuff: int
) -> Overlaps:
    """Let a network look at labelled images and see where its pseudo-classes lie.

    Args:
        network: In evaluation mode, with T_old things and S_old stuff classes.
        samples: Labelled in the new classes, at the size of images that the network was trained at.
        n_things: T_new.
        n_stuff: S_new.

    Returns:
        Sums over all samples, on the CPU.
    """
    device = next(network.parameters()).device
    things = torch.zeros((network.n_things, n_things), dtype=torch.float64)
    stuff = torch.zeros((network.n_stuff, n_stuff), dtype=torch.float64)
    for sample in samples:
        batch = stack_samples([sample], device).finished(min_object_px=1)
        _, (found,), logits = network.detect(batch.images, MIN_SCORE)
        target = batch.targets[0]
        if len(found.boxes) and len(target.boxes):
            rows, columns = torch.nonzero(box_iou(found.boxes, target.boxes) >= MIN_IOU, as_tuple=True)
            pairs = (found.classes[rows].cpu(), target.classes[columns].cpu())
            things.index_put_(pairs, found.scores[rows].double().cpu(), accumulate=True)
        is_stuff = (target.semantic > 0) & (target.semantic != VOID)
        labels = target.semantic[is_stuff].long() - 1
        probs = logits[0].float().softmax(0)[1:, is_stuff]
        stuff.index_add_(1, labels.cpu(), probs.double().cpu())
    return Overlaps(things, stuff)


def find_origins(overlaps: Overlaps, rule: str) -> ClassOrigins:
    """Choose the pseudo-class that each class starts from.

    Args:
        overlaps: Of a network and few labels.
        rule: ``largest``: the pseudo-class that most of the class belongs to, which several classes may share;
            ``one_to_one``: the Hungarian method, one class per pseudo-class; ``fresh``: none.

    Returns:
        An origin per class; none where no pseudo-class lies on the class.
    """
    return ClassOrigins(_choose(overlaps.things, rule), _choose(overlaps.stuff, rule))


def copy_weights(
    own: Mapping[str, Tensor], other: Mapping[str, Tensor], origins: ClassOrigins
) -> dict[str, Tensor]:
    """Weights of a network that starts from another one with other classes.

    Args:
        own: Fresh weights of the network, by the names of network folders.
        other: Weights of the network to start from, of the same architecture.
        origins: Which outputs to copy.

    Returns:
        ``other`` where a weight has no row per class. Of those that have: the rows of the origins, of the background
        and of the semantic channel "some thing" from ``other``, all others from ``own``.
    """
    return {
        name: _copy_rows(weight, other[name], _row_origins(name, origins))
        if CLASS_OUTPUT in name
        else other[name].to(weight)
        for name, weight in own.items()
    }


def _choose(counts: Tensor, rule: str) -> tuple[int | None, ...]:
    n_old, n_new = counts.shape
    chosen: list[int | None] = [None] * n_new
    if rule == "fresh" or n_old == 0:
        return tuple(chosen)
    if rule == "one_to_one":
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(counts.numpy(), maximize=True)
        pairs = list(zip(rows.tolist(), columns.tolist()))
    else:
        pairs = list(zip(counts.argmax(0).tolist(), range(n_new)))
    for row, column in pairs:
        if counts[row, column] > 0:
            chosen[column] = row
    return tuple(chosen)


def _row_origins(name: str, origins: ClassOrigins) -> list[int | None]:
    """The old row of each new row; -1 is the last one.

    Rows of the semantic head are "some thing" and stuff, of a box stage things and background, of the mask head things.
    """
    if name.startswith("semantic_head"):
        return [0, *(None if origin is None else origin + 1 for origin in origins.stuff)]
    if ".stages." in name:
        return [*origins.things, -1]
    return list(origins.things)


def _copy_rows(own: Tensor, other: Tensor, rows: Sequence[int | None]) -> Tensor:
    copied = own.detach().clone()
    for number, row in enumerate(rows):
        if row is not None:
            copied[number] = other[row].to(own)
    return copied
