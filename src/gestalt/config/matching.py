"""Settings of matching: optical flow and disparity, without weights and with them."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import setting


@dataclass(frozen=True)
class DenseInverseSearchSettings:
    """Dense inverse search (Kroeger et al. 2016)."""

    finest_scale: int = setting("finest pyramid level that is searched; 0 is full resolution", low=0, high=5)
    patch_size: int = setting("side of a patch, px", low=4, high=32)
    patch_stride: int = setting("distance between patches, px", low=1, high=16)
    gradient_iterations: int = setting("search steps per patch", low=1)
    refinement_iterations: int = setting("steps of the variational refinement per level", low=0)


@dataclass(frozen=True)
class SemiGlobalMatchingSettings:
    """Semi-global matching (Hirschmueller 2008)."""

    n_disparities: int = setting("search range, px; rounded up to a multiple of 16", low=16)
    block_size: int = setting("side of the matched block, px, odd", low=1, high=11)
    uniqueness_percent: int = setting(
        "how much better than the second best a match must be, percent", low=0, high=100
    )
    speckle_area_px: int = setting("smaller islands of disparity are dropped, px; 0 keeps them", low=0)
    speckle_range_px: int = setting("disparity step that separates islands, px", low=0)
    both_views: bool = setting("match the right image too, for the left-right check and the noise estimate")


@dataclass(frozen=True)
class RaftSettings:
    """RAFT (Teed and Deng, ECCV 2020), trained without labels as SMURF (Stone et al., CVPR 2021)."""

    weights: str = setting("folder of the network's weights; the classic matcher reads none")
    flow_iterations: int = setting("updates of optical flow (CUPS: 16)", low=1, high=64)
    stereo_iterations: int = setting("updates of disparity (CUPS: 16)", low=1, high=64)
    precision: str = setting(
        "auto (bf16 on a GPU that computes it, fp32 elsewhere), fp32 or bf16",
        choices=("auto", "fp32", "bf16"),
    )
    max_vertical_px: float = setting(
        "vertical displacement between the views of a pair above which a disparity is dropped, px; 0 keeps all",
        low=0,
    )
