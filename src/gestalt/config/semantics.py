"""Settings of the section ``semantics``."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.crf import CrfSettings
from gestalt.config.schema import section, setting


@dataclass(frozen=True)
class SemanticsSettings:
    """Pseudo-classes: clustering and depth-guided inference."""

    method: str = setting(
        "what is clustered: kmeans (the features), codes (learned from them by correspondence, section codes)",
        choices=("kmeans", "codes"),
    )
    n_pseudo_classes: int = setting("number of pseudo-classes; CUPS: 27", low=2, high=255)
    n_images: int = setting("images of the fit batches that are clustered, evenly spread", low=1)
    n_vectors: int = setting("cells that are clustered, over all images", low=2)
    restarts: int = setting("independent starts of k-means; the best one is kept", low=1)
    unit_features: bool = setting(
        "of k-means: features are scaled to length 1 first, which a transformer's need and the dictionary's do not"
    )
    temperature: float = setting(
        "divides squared distances before the softmax, in mean squared distances to the centre", low=1e-3
    )
    sharpness: float = setting(
        "of codes: cosines are multiplied by it before the softmax (STEGO, CUPS: 2)", low=1e-3
    )
    geometry: bool = setting("cluster geometry from stereo with the features (ours, not in CUPS)")
    height_weight: float = setting("length of the three heights above ground", low=0)
    nearness_weight: float = setting("length of the logarithm of disparity", low=0)
    protrusion_weight: float = setting("length of the three protrusions out of the row", low=0)
    extent_weight: float = setting("length of the three vertical extents", low=0)
    windows: bool = setting(
        "predict from sliding windows, half the height wide; false for features that look no farther anyway"
    )
    window_batch: int = setting("windows encoded at once; changes no result", low=1)
    precision: str = setting(
        "of the features: auto (bf16 on a GPU, fp32 elsewhere), fp32 or bf16; all else is fp32",
        choices=("auto", "fp32", "bf16"),
    )
    fusion: bool = setting("mix in the prediction of the halved image, guided by depth; CUPS: true")
    depth_scale_m: float = setting(
        "depth at which both predictions weigh the same, metres; CUPS: 1", low=1e-3
    )
    max_depth_m: float = setting("depth of pixels without a match, and the largest of all, metres", low=1)
    crf: CrfSettings = section(CrfSettings, "pseudo-classes follow the edges of the image")
