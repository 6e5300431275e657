"""Which codes are good, asked without a label: do two clusterings that never met agree on images neither has seen?

Each is fitted on codes of another half of the training images, with other random choices. One labels the held-out
crops, the other their mirror images. Codes that say only where a crop is from, or nothing, cluster by chance and
disagree; codes of what is to be seen make the same groups each time. Clustering stability is a known criterion
(Lange et al., "Stability-Based Validation of Clustering Solutions", Neural Computation 2004). Agreement is measured
twice: by the adjusted Rand index, and by mutual information, which rewards many groups as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.errors import ShapeError
from gestalt.features.kmeans import fit_kmeans
from gestalt.runtime import torch_generator
from gestalt.semantics.cluster_order import rank_by_row
from gestalt.semantics.code_head import CodeHead, cosine_to_prototypes
from gestalt.semantics.feature_store import FeatureStore

MAX_STEPS = 60
# Of the numbers in records.
DIGITS = 6
# Crops that codes are sampled from, at most, and that are judged, at most: more change little.
SAMPLED_CROPS, JUDGED_CROPS = 512, 96
READ_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class CodeSample:
    """Codes of random cells.

    Attributes:
        vectors: (n, dimension) float, of unit length, on the CPU.
        rows: (n,) float, row of each cell, share of the height of its image.
    """

    vectors: Tensor
    rows: Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Which crops are for what; all are numbers of a store.

    Attributes:
        training: (n,) int64.
        halves: Two parts of ``training``, of different images where there are two.
        held_out: (m,) int64.
        mirrored: (m,) int64, the mirrored twins of ``held_out``.
    """

    training: Tensor
    halves: tuple[Tensor, Tensor]
    held_out: Tensor
    mirrored: Tensor


def held_out_images(n_images: int, share: float) -> list[int]:
    """Numbers of the images that only selection sees, evenly spread; at least one."""
    count = max(1, round(n_images * share))
    return [int((place + 0.5) * n_images / count) for place in range(count)]


def split_crops(store: FeatureStore) -> Split:
    """Crops of held-out images, which are those with a mirrored twin, and of all others."""
    image, is_mirrored = torch.from_numpy(store.image), torch.from_numpy(store.is_mirrored)
    mirrored = is_mirrored.nonzero()[:, 0]
    is_held_out = torch.isin(image, image[mirrored]) & ~is_mirrored
    training = (~is_held_out & ~is_mirrored).nonzero()[:, 0]
    # Every other image: sequences then lie on both sides.
    order = torch.unique(image[training], return_inverse=True)[1]
    if order.max() < 1:
        order = torch.arange(len(training))
    halves = (training[order % 2 == 0], training[order % 2 == 1])
    return Split(training, halves, is_held_out.nonzero()[:, 0], mirrored)


@torch.no_grad()
def sample_codes(
    head: CodeHead, store: FeatureStore, crops: Tensor, count: int, generator: torch.Generator
) -> CodeSample:
    """Codes of random cells of random crops.

    Args:
        head: Makes codes; its device is where this runs.
        store: Features.
        crops: (n,) int64, where cells are taken from.
        count: How many, about: each crop gives equally many.
        generator: CPU generator.
    """
    device = next(head.parameters()).device
    chosen = crops[torch.randperm(len(crops), generator=generator)[:SAMPLED_CROPS]]
    h, w = store.grid
    per_crop = min(h * w, -(-count // len(chosen)))
    vectors, rows = [], []
    for part in torch.split(chosen, READ_AT_ONCE):
        cells = torch.rand(len(part), h * w, generator=generator).argsort(1)[:, :per_crop]
        codes = functional.normalize(head(store.read(part, device)), dim=1).flatten(2).cpu()
        vectors.append(codes.gather(2, cells[:, None].expand(-1, codes.shape[1], -1)).mT.flatten(0, 1))
        top, bottom = torch.from_numpy(store.rows[part.numpy()]).T[:, :, None]
        rows.append((top + (bottom - top) * (cells // w + 0.5) / h).flatten())
    return CodeSample(torch.cat(vectors), torch.cat(rows))


def fit_prototypes(vectors: Tensor, count: int, restarts: int, generator: torch.Generator) -> Tensor:
    """(count, dimension) float, of unit length: spherical k-means of the unit vectors (n, dimension)."""
    clustering = fit_kmeans(
        vectors, count, restarts=restarts, max_steps=MAX_STEPS, generator=generator, spherical=True
    )
    return functional.normalize(clustering.centres, dim=1)


def clustering_objective(vectors: Tensor, prototypes: Tensor) -> float:
    """Mean cosine of the unit vectors (n, dimension) to their nearest prototypes (K, dimension)."""
    return float((vectors @ functional.normalize(prototypes, dim=1).T).amax(1).mean(dtype=torch.float64))


@torch.no_grad()
def choose_prototypes(
    head: CodeHead,
    trained: Tensor,
    store: FeatureStore,
    crops: Tensor,
    count: int,
    restarts: int,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, Any]]:
    """The better, by mean cosine, of trained prototypes and of k-means of the codes.

    Args:
        head: Makes codes; its device is where the result lies.
        trained: (K, dimension) float, of any length.
        store: Features.
        crops: (n,) int64, where codes are sampled from.
        count: How many codes, about.
        restarts: Independent starts of k-means.
        generator: CPU generator.

    Returns:
        (K, dimension) float of unit length, in order of the mean row of what they label; and which were kept, mean
        cosines, shares and rows.
    """
    sample = sample_codes(head, store, crops, count, generator)
    fitted = fit_prototypes(sample.vectors, len(trained), restarts, generator)
    candidates = {"trained": functional.normalize(trained.cpu(), dim=1), "refitted": fitted}
    objectives = {name: clustering_objective(sample.vectors, found) for name, found in candidates.items()}
    kept = max(objectives, key=lambda name: objectives[name])
    labels = (sample.vectors @ candidates[kept].T).argmax(1)
    ranking = rank_by_row(labels, sample.rows, len(trained))
    record = {
        "kept": kept,
        **{f"{name}_cosine": round(value, DIGITS) for name, value in objectives.items()},
        "shares": [round(share, DIGITS) for share in ranking.shares],
        "mean_rows": [round(row, DIGITS) for row in ranking.mean_rows],
    }
    return candidates[kept][ranking.order].to(trained.device), record


@torch.no_grad()
def label_twice(
    head: CodeHead,
    store: FeatureStore,
    split: Split,
    n_prototypes: int,
    n_vectors: int,
    restarts: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Two clusterings, fitted apart, of two views of held-out crops.

    Args:
        head: Makes codes.
        store: Features.
        split: Which crops are for what.
        n_prototypes: K.
        n_vectors: Codes that each clustering is fitted on.
        restarts: Independent starts of either.
        seed: The experiment's.

    Returns:
        Two (n,) int64, on the CPU: cluster of each cell of the crops, and of the same cell of their mirror images.
    """
    device = next(head.parameters()).device
    places = torch.linspace(0, len(split.held_out) - 1, min(len(split.held_out), JUDGED_CROPS)).round().long()
    labels = []
    for number, (half, view) in enumerate(zip(split.halves, (split.held_out, split.mirrored), strict=True)):
        generator = torch_generator(seed, "codes", "stability", number)
        sample = sample_codes(head, store, half, n_vectors, generator)
        prototypes = fit_prototypes(sample.vectors, n_prototypes, restarts, generator).to(device)
        parts = [
            cosine_to_prototypes(head(store.read(part, device)), prototypes).argmax(1).flatten().cpu()
            for part in torch.split(view[places], READ_AT_ONCE)
        ]
        labels.append(torch.cat(parts))
    return labels[0], labels[1]


def adjusted_rand_index(first: Tensor, second: Tensor) -> float:
    """Agreement of two groupings of the same things, corrected for chance (Hubert & Arabie 1985).

    Args:
        first: (n,) int64, group of each thing, not negative.
        second: (n,) int64.

    Returns:
        1 for equal groupings, whatever the numbers of the groups; about 0 for independent ones.

    Raises:
        ShapeError: Lengths differ, or nothing is grouped.
    """
    table = _shared(first, second)
    both, rows, others = (_pairs(counts) for counts in (table, table.sum(1), table.sum(0)))
    everything = len(first) * (len(first) - 1) / 2
    expected = rows * others / max(everything, 1)
    best = (rows + others) / 2
    # Both put everything in one group, or each thing in a group of its own.
    return 1.0 if best == expected else (both - expected) / (best - expected)


def mutual_information(first: Tensor, second: Tensor) -> float:
    """What one grouping says of the other.

    Args:
        first: (n,) int64, group of each thing, not negative.
        second: (n,) int64.

    Returns:
        Nats: 0 for independent groupings, and at most the logarithm of the number of groups.

    Raises:
        ShapeError: Lengths differ, or nothing is grouped.
    """
    joint = _shared(first, second) / len(first)
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    known = joint > 0
    return float((joint[known] * (joint[known] / apart[known]).log()).sum())


def _shared(first: Tensor, second: Tensor) -> Tensor:
    """Things that each group of the first shares with each of the second: (groups, groups) float64."""
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ShapeError(
            f"groupings must be (n,) both, n at least 1. Got: {tuple(first.shape)} and {tuple(second.shape)}"
        )
    columns = int(second.max()) + 1
    counts = torch.bincount(first * columns + second, minlength=(int(first.max()) + 1) * columns)
    return counts.reshape(-1, columns).double()


def _pairs(counts: Tensor) -> float:
    return float((counts * (counts - 1) / 2).sum())
