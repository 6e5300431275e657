"""Settings of ``pseudo_labels``, ``thing_stuff`` and ``normalized_cut``."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import section, setting


@dataclass(frozen=True)
class ComponentSettings:
    """Which connected components of the pseudo-class map count as objects when there is no motion."""

    enabled: bool = setting("take them instead of masks; true for the ablation without motion")
    min_area_px: int = setting("smallest component, pixels", low=1)
    max_area_share: float = setting("largest component, share of the image", low=0, high=1)
    min_surface_m2: float = setting("smallest visible surface, square metres", low=0)
    max_surface_m2: float = setting("largest visible surface, square metres", low=0)
    min_box_fill: float = setting("compactness: least share of its box that it fills", low=0, high=1)


@dataclass(frozen=True)
class PseudoLabelSettings:
    """Fusion of object proposals and pseudo-classes."""

    proposals: str = setting(
        "whose masks are objects: motion (the method) or normalized_cut (a baseline); a folder under data/",
        choices=("motion", "normalized_cut"),
    )
    border_px: int = setting(
        "columns at the left and at the right edge without instances, pixels; CUPS: 32 of 1280", low=0
    )
    min_area_px: int = setting(
        "smallest instance that the border may leave over, pixels; CUPS: 64 at 640x1280", low=1
    )
    components: ComponentSettings = section(ComponentSettings, "objects of the ablation without motion")


@dataclass(frozen=True)
class ThingStuffSettings:
    """The split of the pseudo-classes."""

    psi: float = setting(
        "a pseudo-class is a thing when its normalised share of pixels inside objects is above; CUPS: 0.08",
        low=0,
        high=1,
    )


@dataclass(frozen=True)
class NormalizedCutSettings:
    """Object proposals by iterated normalised cut, after MaskCut (Wang et al., CVPR 2023)."""

    image_size: int = setting(
        "squash images to a square of this side, pixels; 0 keeps them; MaskCut: 480", low=0
    )
    patch_px: int = setting("side of a patch of the graph, pixels; MaskCut: 8", low=1)
    centre: bool = setting("standardise features over the image before the cosine; MaskCut: false")
    tau: float = setting("patches are alike when their cosine is above; MaskCut: 0.15", low=-1, high=1)
    weak_edge: float = setting("weight of the edge between unlike patches; MaskCut: 1e-5", low=0, high=1)
    max_masks: int = setting("most masks of an image; MaskCut: 3", low=1)
    min_area_share: float = setting("smallest mask, share of the patches; MaskCut: 0.01", low=0, high=1)
    tolerance: float = setting("relative accuracy of the eigenvalue", low=0)
    refine: str = setting("how masks follow the edges of the image", choices=("none", "guided"))
    refine_radius_px: int = setting("window of the guided filter, pixels", low=1)
    refine_epsilon: float = setting("regularisation of the guided filter, squared intensity in [0, 1]", low=0)
    min_refined_iou: float = setting(
        "drop a mask that refinement changes more, intersection over union; MaskCut: 0.5", low=0, high=1
    )
