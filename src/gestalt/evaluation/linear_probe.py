"""How much of the classes is in vectors, linearly: logistic regression with labels. A diagnosis, never a result.

Nothing that is learned from it goes anywhere but into a report: labels choose no code, no step and no setting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from gestalt.errors import DataError, ShapeError
from gestalt.panoptic import VOID

# L-BFGS stops when no gradient is larger; the objective is convex, so more changes no prediction worth naming.
GRADIENT_TOLERANCE = 1e-5
HISTORY = 20


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A linear classifier of vectors.

    Attributes:
        weight: (C, D) float.
        bias: (C,) float; minus infinity for classes that no label named.
    """

    weight: Tensor
    bias: Tensor

    def predict(self, vectors: Tensor) -> Tensor:
        """(n, D) float vectors -> (n,) int64 classes."""
        return (vectors @ self.weight.T + self.bias).argmax(1)


@dataclass(frozen=True, eq=False)
class LinearQuality:
    """Percent.

    Attributes:
        mean_iou: Mean over the classes that occur in labels or predictions.
        accuracy: Share of right vectors.
        iou: (C,) float64, NaN where a class does not occur.
    """

    mean_iou: float
    accuracy: float
    iou: npt.NDArray[np.float64]


def fit_linear_probe(
    vectors: Tensor, labels: Tensor, n_classes: int, *, penalty: float = 1e-4, max_steps: int = 200
) -> LinearProbe:
    """Multinomial logistic regression.

    Args:
        vectors: (n, D) float.
        labels: (n,) int64 in 0..C-1, 255 where void; those are left out.
        n_classes: C.
        penalty: Half of it times the squared length of the weights is added to the mean cross-entropy; of weights
            for vectors of unit variance, so that the scale of channels does not matter.
        max_steps: Of L-BFGS, at most.

    Raises:
        ShapeError: Vectors and labels do not fit each other.
        DataError: A vector is not finite, a label out of range, or fewer than two classes are named.
    """
    kept, targets = _without_void(vectors, labels, n_classes)
    if not bool(torch.isfinite(kept).all()):
        raise DataError("vectors of the linear probe hold NaN or infinity")
    present = torch.unique(targets)
    if len(present) < 2:
        raise DataError(f"a linear probe needs labels of at least two classes. Got: {present.tolist()}")
    mean = kept.mean(0)
    scale = 1 / kept.std(0).clamp(min=1e-6)
    inputs = (kept - mean) * scale
    weight = inputs.new_zeros(n_classes, inputs.shape[1]).requires_grad_()
    bias = inputs.new_zeros(n_classes).requires_grad_()
    absent = torch.ones(n_classes, dtype=torch.bool, device=inputs.device)
    absent[present] = False
    optimiser = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_steps,
        history_size=HISTORY,
        tolerance_grad=GRADIENT_TOLERANCE,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimiser.zero_grad()
        logits = (inputs @ weight.T + bias).masked_fill(absent, -torch.inf)
        loss = functional.cross_entropy(logits, targets) + penalty / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimiser.step(objective)  # type: ignore[no-untyped-call]
    scaled = weight.detach() * scale
    offsets = (bias.detach() - scaled @ mean).masked_fill(absent, -torch.inf)
    return LinearProbe(scaled, offsets)


def linear_quality(probe: LinearProbe, vectors: Tensor, labels: Tensor) -> LinearQuality:
    """MIoU and accuracy of a probe on vectors that it was not fitted on.

    Args:
        probe: From ``fit_linear_probe``.
        vectors: (n, D) float.
        labels: (n,) int64, 255 where void; those are left out.

    Raises:
        ShapeError: Vectors and labels do not fit each other.
        DataError: A label is out of range.
    """
    n_classes = len(probe.bias)
    kept, targets = _without_void(vectors, labels, n_classes)
    cells = probe.predict(kept) * n_classes + targets
    counts = torch.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes).cpu().numpy()
    right = np.diagonal(counts)
    union = counts.sum(0) + counts.sum(1) - right
    iou = np.divide(100.0 * right, union, out=np.full(n_classes, np.nan), where=union > 0)
    total = int(counts.sum())
    return LinearQuality(
        mean_iou=float(np.nanmean(iou)) if total else 0.0,
        accuracy=100.0 * float(right.sum()) / total if total else 0.0,
        iou=iou,
    )


def _without_void(vectors: Tensor, labels: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    if vectors.ndim != 2 or not vectors.is_floating_point() or labels.shape != vectors.shape[:1]:
        raise ShapeError(
            "vectors must be (n, D) float and labels (n,). "
            f"Got: {tuple(vectors.shape)} {vectors.dtype} and {tuple(labels.shape)}"
        )
    named = labels != VOID
    kept, targets = vectors[named], labels[named].long()
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < n_classes:
        raise DataError(
            f"labels must be 0..{n_classes - 1}, or {VOID} where void. "
            f"Got: {int(targets.min())}..{int(targets.max())}"
        )
    return kept, targets
