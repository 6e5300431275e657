"""Settings of correspondence distillation: how a small head on frozen features learns codes that cluster.

Numbers in brackets are those of STEGO (Hamilton et al., ICLR 2022) and DepthG (Sick et al., CVPR 2024), for Cityscapes
where they differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import section, setting


@dataclass(frozen=True)
class CodeCropSettings:
    """The crops that features are computed of, once."""

    ratio: float = setting(
        "sides of the five crops of an image, share of its sides (0.5); 1 takes the whole image",
        low=0.1,
        high=1,
    )
    height: int = setting("rows of a crop after scaling, px (224); 0 leaves crops at their size", low=0)
    width: int = setting("columns of a crop after scaling, px (224); 0 leaves crops at their size", low=0)


@dataclass(frozen=True)
class NeighbourSettings:
    """The crops that a crop is paired with."""

    stored: int = setting("most similar crops that are stored for each crop (30)", low=1)
    positives: int = setting("of these, the first that pairs are drawn from (7)", low=1)
    same_image: bool = setting(
        "other crops of the same image, which may overlap, can be neighbours too (true)"
    )


@dataclass(frozen=True)
class CorrespondenceSettings:
    """Correlations of features that correlations of codes are to follow, as pairs of weight and shift."""

    positions: int = setting("positions that are compared in a crop, square root of their number (11)", low=2)
    negatives: int = setting("derangements of the batch that give unlike pairs (5)", low=1)
    centring: bool = setting(
        "subtract from the correlations of a position their mean (pointwise; STEGO true, DepthG false)"
    )
    clamp_high: float = setting(
        "larger code correlations have no gradient (0.8 where codes are unstable); 1 turns it off",
        low=0,
        high=1,
    )
    geometry: bool = setting("geometry channels behind the features take part in the feature correlation")
    self_weight: float = setting("weight of pairs of a crop with itself (0.95)", low=0)
    self_shift: float = setting("feature correlation from which they attract (0.39)", low=-1, high=1)
    neighbour_weight: float = setting("weight of pairs with a neighbour (1.02)", low=0)
    neighbour_shift: float = setting("feature correlation from which they attract (0.25)", low=-1, high=1)
    random_weight: float = setting("weight of pairs with a random crop (0.57)", low=0)
    random_shift: float = setting("feature correlation from which they attract (0.26)", low=-1, high=1)
    auto_shifts: bool = setting(
        "measure the three shifts instead: a share of the feature correlations lies below each (ours)"
    )
    self_share: float = setting("that share for pairs of a crop with itself", low=0, high=1)
    neighbour_share: float = setting("that share for pairs with a neighbour", low=0, high=1)
    random_share: float = setting("that share for pairs with a random crop", low=0, high=1)


@dataclass(frozen=True)
class DepthGuidanceSettings:
    """Both uses of depth: a correlation that codes are to follow, and where positions lie."""

    weight: float = setting("weight of the depth correlation (0.09); 0 turns it off", low=0)
    shift: float = setting("depth correlation from which it attracts (0.03)", low=-1, high=2)
    decay: float = setting("factor of weight and shift (0.8)", low=0, high=1)
    decay_every: int = setting("steps between two such decays (400)", low=1)
    scale: str = setting(
        "what runs from 0 to 1 in each crop: the logarithm of depth or its inverse (depth)",
        choices=("log", "inverse"),
    )
    target: str = setting(
        "correlation of two depths: difference (1 - |z - z'|) or product (z z', as in DepthG)",
        choices=("difference", "product"),
    )
    sampling: str = setting(
        "positions: random, or farthest (points that cover the scene; not in the run on Cityscapes)",
        choices=("random", "farthest"),
    )
    positions_decay: float = setting(
        "factor of the root of the number of farthest points (1; COCO 0.9)", low=0.1, high=1
    )
    positions_decay_every: int = setting("steps between two such decays (1000)", low=1)
    as_published: bool = setting(
        "repeat the slips of DepthG's published code that docs/correspondence.md lists"
    )


@dataclass(frozen=True)
class CodeSelectionSettings:
    """Which step of the training is kept, without labels."""

    held_out: float = setting("share of the images that selection alone sees", low=0.01, high=0.5)
    checkpoints: int = setting("steps, evenly spread, that are compared", low=1)
    criterion: str = setting(
        "on held-out crops: information or stability (mutual information, or adjusted Rand index, of two "
        "clusterings fitted apart and two views), or loss",
        choices=("information", "stability", "loss"),
    )
    n_vectors: int = setting("codes that each of the two clusterings is fitted on", low=2)
    restarts: int = setting("independent starts of either", low=1)


@dataclass(frozen=True)
class CodeSettings:
    """Codes: a head on frozen features, learned from correspondences (STEGO, DepthG)."""

    dimension: int = setting("length of a code (100; STEGO 70)", low=2)
    dropout: float = setting("share of the input channels that a branch does not see (0.1)", low=0, high=0.9)
    steps: int = setting("optimiser steps (7000)", low=1)
    batch_size: int = setting("crops of a step (32)", low=2)
    learning_rate: float = setting("step size of Adam for the head (0.0005)", low=1e-8)
    prototype_learning_rate: float = setting("step size of Adam for the prototypes (0.005)", low=1e-8)
    refit_vectors: int = setting("codes that prototypes are refitted on by spherical k-means", low=2)
    refit_restarts: int = setting("independent starts of that", low=1)
    log_every: int = setting("steps between two rows of the curve", low=1)
    checkpoint_every: int = setting("steps between two resumable states", low=1)
    crops: CodeCropSettings = section(CodeCropSettings, "what a training image is")
    neighbours: NeighbourSettings = section(NeighbourSettings, "which crops look alike")
    correspondence: CorrespondenceSettings = section(CorrespondenceSettings, "what codes are to follow")
    depth: DepthGuidanceSettings = section(DepthGuidanceSettings, "the part of depth in it (DepthG)")
    selection: CodeSelectionSettings = section(CodeSelectionSettings, "which step is kept")
