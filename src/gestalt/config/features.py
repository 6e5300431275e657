"""Settings of the section ``features``."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import section, setting


@dataclass(frozen=True)
class DictionarySettings:
    """Features fitted in seconds: patch dictionary, colour, texture, position."""

    n_images: int = setting("images of the fit batches that features are fitted on, evenly spread", low=1)
    patch_size: int = setting("side of a dictionary patch, pixels", low=4, high=32)
    patch_step: int = setting("pixels between encoded patches; divides the stride 4", low=1, high=4)
    n_patches: int = setting("patches that the dictionary is learned from", low=100)
    n_filters: int = setting("size of the dictionary", low=2)
    contrast_epsilon: float = setting(
        "added to the variance of a patch, intensities in 0..1 (Coates & Ng: 10 for 0..255)", low=1e-6
    )
    whitening_epsilon: float = setting("damping of the patch whitening (Coates & Ng: 0.1)", low=0)
    code_threshold: float = setting("soft threshold of a code (Coates & Ng: 0.25)", low=0)
    pool_sigmas_px: list[float] = setting("Gaussian widths that codes are pooled with, pixels", low=0.5)
    components: int = setting("principal components kept of each pooling width", low=1)
    dictionary_weight: float = setting("root mean square length of the dictionary block", low=0)
    colour_weight: float = setting("length of the colour block (Lab at three scales)", low=0)
    texture_weight: float = setting("length of the texture block (contrast, oriented gradients)", low=0)
    position_weight: float = setting("length of the image row as a feature; 0 leaves it out", low=0)


@dataclass(frozen=True)
class BackboneFileSettings:
    """A backbone that somebody else trained."""

    path: str = setting(
        "file or folder of the weights; `gestalt weights fetch` makes one. Not read with another source"
    )
    facet: str = setting(
        "what a cell is described by: tokens of the last block (STEGO, DepthG, CUPS), or its keys (MaskCut)",
        choices=("tokens", "keys"),
    )


@dataclass(frozen=True)
class FeatureSettings:
    """Self-supervised dense features."""

    source: str = setting(
        "dictionary (fitted in seconds), distillation (section distillation: a ViT, trained here), file (brought)",
        choices=("dictionary", "distillation", "file"),
    )
    dictionary: DictionarySettings = section(DictionarySettings, "read with source dictionary")
    file: BackboneFileSettings = section(BackboneFileSettings, "read with source file")
