"""The graph of an image's patches and its normalised cut: matrix-free products and Lanczos iterations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

Float32Array = npt.NDArray[np.float32]

# Below this many nodes there is no second eigenvector to iterate for.
FEWEST_NODES = 4

# Lanczos needs some tens of products; a graph without a gap would go on for ever.
MOST_RESTARTS = 50


@dataclass(frozen=True, eq=False)
class PatchGraph:
    """Patches that look alike are joined by an edge of weight 1, the others by a weak one.

    Attributes:
        alike: (n, n) float32, 1 where two patches are alike, 0 elsewhere; symmetric.
        weak_edge: Weight of the other edges; keeps the graph connected.
    """

    alike: Float32Array
    weak_edge: float

    @classmethod
    def from_features(
        cls, features: npt.NDArray[np.floating[Any]], tau: float, weak_edge: float
    ) -> PatchGraph:
        """Join patches whose cosine similarity is above ``tau``.

        Args:
            features: (n, D) float, one row per patch; a row of zeros is like no other.
            tau: In [-1, 1].
            weak_edge: Weight of the edge between unlike patches.

        Source:
            TokenCut (Wang et al., CVPR 2022) and MaskCut (Wang et al., CVPR 2023).
        """
        norm = np.linalg.norm(features, axis=1, keepdims=True)
        unit = (features / np.maximum(norm, 1e-12)).astype(np.float32)
        return cls((unit @ unit.T > tau).astype(np.float32), weak_edge)

    def without(self, removed: npt.NDArray[np.bool_]) -> PatchGraph:
        """The graph of the other nodes; ``removed`` is (n,) bool."""
        kept = ~removed
        return PatchGraph(self.alike[np.ix_(kept, kept)], self.weak_edge)

    def weigh(self, vector: npt.NDArray[Any]) -> Float32Array:
        """Product of the affinity matrix and an (n,) vector, without building the weak edges."""
        vector = vector.ravel().astype(np.float32)
        weak = np.float32(self.weak_edge)
        product: Float32Array = (1 - weak) * (self.alike @ vector) + weak * vector.sum()
        return product


@dataclass(frozen=True, eq=False)
class NormalizedCut:
    """The relaxed normalised cut of a graph.

    Attributes:
        vector: (n,) float32, second generalised eigenvector y of (D - A) y = lambda D y; its sign is such
            that the entry of largest magnitude is positive.
        affinity: Eigenvalue of D^-1/2 A D^-1/2, 1 - lambda; near 1 where the graph falls apart.
    """

    vector: Float32Array
    affinity: float


def normalized_cut(
    graph: PatchGraph, generator: np.random.Generator, *, tolerance: float
) -> NormalizedCut | None:
    """Solve for the second smallest generalised eigenvector.

    Args:
        graph: The patches.
        generator: Draws the start of the iteration.
        tolerance: Relative accuracy of the eigenvalue.

    Returns:
        None where the graph is too small or has no second eigenvector that iterations find.

    Source:
        Shi and Malik, PAMI 2000. The public implementations solve the dense generalised problem, O(n^3). Ours
        iterates on S = D^-1/2 A D^-1/2, whose first eigenvector D^1/2 1 is known and pushed to the other end
        of the spectrum, so that Lanczos needs some tens of products, O(n^2) each.
    """
    n = len(graph.alike)
    if n < FEWEST_NODES:
        return None
    degree = np.maximum(graph.weigh(np.ones(n)), np.float32(1e-12))
    scale = 1 / np.sqrt(degree)
    known = np.sqrt(degree) / np.linalg.norm(np.sqrt(degree))

    def product(vector: npt.NDArray[Any]) -> Float32Array:
        vector = vector.ravel().astype(np.float32)
        deflated: Float32Array = scale * graph.weigh(scale * vector) - 2 * known * (known @ vector)
        return deflated

    operator = LinearOperator((n, n), matvec=product, dtype=np.float32)
    start = generator.standard_normal(n).astype(np.float32)
    start -= known * (known @ start)
    try:
        values, vectors = eigsh(operator, k=1, which="LA", v0=start, tol=tolerance, maxiter=MOST_RESTARTS)
    except ArpackNoConvergence:
        return None
    vector = scale * vectors[:, 0]
    sign = np.sign(vector[np.abs(vector).argmax()])
    return NormalizedCut((sign * vector).astype(np.float32), float(values[0]))
