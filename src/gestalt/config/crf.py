"""Settings of the section ``semantics.crf``."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import setting


@dataclass(frozen=True)
class CrfSettings:
    """Fully connected CRF: neighbours, and distant pixels of one colour, ought to have one pseudo-class."""

    iterations: int = setting(
        "mean-field iterations; CUPS: 10; 0 leaves the probabilities as they are", low=0
    )
    gaussian_weight: float = setting("weight of the Gaussian kernel; CUPS: 3; 0 leaves it out", low=0)
    gaussian_sigma_px: float = setting("its standard deviation, pixels; CUPS: 1", low=0.05)
    bilateral_weight: float = setting("weight of the bilateral kernel; CUPS: 4; 0 leaves it out", low=0)
    bilateral_sigma_px: float = setting("its standard deviation in space, pixels; CUPS: 67", low=0.05)
    bilateral_sigma_rgb: float = setting("its standard deviation in colour, grey levels; CUPS: 3", low=0.05)
