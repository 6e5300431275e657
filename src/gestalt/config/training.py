"""Settings of the sections ``guided`` (training on pseudo-labels) and ``self_training`` (on own output)."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import section, setting


@dataclass(frozen=True)
class OptimiserSettings:
    """AdamW and its schedule."""

    learning_rate: float = setting("AdamW step size after warm-up", low=0)
    weight_decay: float = setting("AdamW decay; normalisation parameters and biases have none", low=0)
    warmup_steps: int = setting("steps over which the step size grows linearly; CUPS: 0", low=0)
    final_share: float = setting(
        "share of the step size that a cosine ends at; CUPS: 1 (constant)", low=0, high=1
    )
    clip_norm: float = setting("global gradient norm is clipped here; CUPS: 1", low=0)
    mixed_precision: bool = setting("bfloat16 autocast of the forward pass; CUPS: true")
    accumulate: int = setting(
        "passes of each process in which a step takes its images; more need less memory", low=1
    )


@dataclass(frozen=True)
class PhotometricSettings:
    """Changes of colour and sharpness, per image."""

    blur_prob: float = setting("chance of Gaussian blur; CUPS: 1", low=0, high=1)
    blur_sigma_low_px: float = setting("smallest sigma, px", low=0)
    blur_sigma_high_px: float = setting("largest sigma, px", low=0)
    colour_prob: float = setting("chance of a colour change; CUPS: 0.5", low=0, high=1)
    brightness: float = setting("largest relative change", low=0, high=1)
    contrast: float = setting("largest relative change", low=0, high=1)
    saturation: float = setting("largest relative change", low=0, high=1)
    hue: float = setting("largest turn, share of the colour circle", low=0, high=0.5)
    grey_prob: float = setting("chance of a grey image; CUPS: 0.2", low=0, high=1)


@dataclass(frozen=True)
class SharedAugmentationSettings:
    """What both trainings do to images beside cropping."""

    flip_prob: float = setting("chance of mirroring", low=0, high=1)
    jitter_heights_px: list[int] = setting(
        "one of these heights for the whole batch; the width keeps the images' own aspect", low=32
    )
    photometric: PhotometricSettings = section(PhotometricSettings, "colour and sharpness")


@dataclass(frozen=True)
class AugmentationSettings(SharedAugmentationSettings):
    """Geometry and photometry, in the order crop, copy-paste, resolution, photometry."""

    crop_area_low: float = setting("smallest share of the image area that a crop keeps", low=0.01, high=1)
    crop_area_high: float = setting("largest share", low=0.01, high=1)


@dataclass(frozen=True)
class SelfAugmentationSettings(SharedAugmentationSettings):
    """Photometry and geometry, in the order copy-paste, photometry, crop, resolution."""

    crop_height_low: float = setting(
        "smallest share of the image height that a crop keeps; CUPS: 0.5", low=0.01, high=1
    )
    crop_height_high: float = setting("largest share; the crop has the images' own aspect", low=0.01, high=1)


@dataclass(frozen=True)
class PasteSettings:
    """How objects are pasted into images."""

    enabled: bool = setting("paste at all; false for the ablation without copy-paste")
    min_side_px: int = setting("boxes up to this height or width are not pasted; CUPS: 32 at 640x1280", low=1)
    min_objects: int = setting("fewest objects per image", low=0)
    max_objects: int = setting("most objects per image", low=0)
    scale_low: float = setting("smallest scale of a pasted object; CUPS: 0.25", low=0.01)
    scale_high: float = setting("largest scale; CUPS: 1.5", low=0.01)


@dataclass(frozen=True)
class SelfEnhancedPasteSettings(PasteSettings):
    """Copy-paste whose source turns from pseudo-labels to the network's own confident predictions."""

    start_up_steps: int = setting("own predictions are a source from this step; CUPS: 1000 of 8000", low=0)
    predict_every: int = setting("steps between predictions for the queue; CUPS predicts every step", low=1)
    score_threshold: float = setting("own predictions above this score are objects", low=0, high=1)
    novel_iou: float = setting("and below this box IoU with each pseudo-label object", low=0, high=1)
    queue_size: int = setting("most recent own objects that are kept", low=1)


@dataclass(frozen=True)
class DropLossSettings:
    """DropLoss: no classification loss on proposals far from every pseudo-label."""

    enabled: bool = setting("drop at all; false for the ablation without DropLoss")
    iou: float = setting("boxes up to this IoU with every target do not count; CUPS: 0.4", low=0, high=1)
    unlabelled_share: float = setting(
        "but only if this share of the box is void or an uncovered thing; 0: wherever it is, as CUPS",
        low=0,
        high=1,
    )
    covers_anchors: bool = setting(
        "negative anchors with that share do not count either in the proposal network; CUPS: false"
    )


@dataclass(frozen=True)
class GuidedSettings:
    """Training on pseudo-labels."""

    steps: int = setting("optimiser steps; CUPS: 4000 in the paper, 8000 released", low=1)
    batch_size: int = setting("images per step, over all processes and passes; CUPS: 64", low=1)
    ignore_uncovered_things: bool = setting(
        "thing pixels without an instance are void in the semantic target (paper) instead of thing (released)"
    )
    min_object_px: int = setting("targets with fewer pixels are left out; CUPS: 5", low=1)
    keep_in_memory: bool = setting("keep decoded images and labels as uint8 in memory")
    checkpoint_every: int = setting("steps between resumable checkpoints", low=1)
    picture_every: int = setting("steps between pictures of targets and predictions; 0 for none", low=0)
    initial_backbone: str = setting(
        "file or folder of a self-supervised trunk to start from; empty starts from random"
    )
    initial_network: str = setting("folder of a trained network to start from; empty starts from random")
    optimiser: OptimiserSettings = section(OptimiserSettings, "AdamW and its schedule")
    augmentation: AugmentationSettings = section(AugmentationSettings, "geometry and photometry")
    copy_paste: SelfEnhancedPasteSettings = section(SelfEnhancedPasteSettings, "self-enhanced copy-paste")
    drop_loss: DropLossSettings = section(DropLossSettings, "DropLoss")


@dataclass(frozen=True)
class SelfTrainingSettings:
    """Training on the averaged predictions of an exponential-moving-average teacher."""

    steps: int = setting("optimiser steps over all rounds; 0 hands the guided network on", low=0)
    rounds: int = setting("equal parts of the steps; each raises the instance confidence", low=1)
    batch_size: int = setting("images per step, over all processes and passes; CUPS: 64", low=1)
    image_scale: float = setting(
        "images are this many times as large as section frames makes them; CUPS: 1.6 (1024x2048)",
        low=0.1,
        high=4,
    )
    ema_decay: float = setting("share of the teacher that a step keeps; CUPS: 0.999", low=0, high=1)
    view_scales: list[float] = setting("scales of the teacher's views, relative to the images", low=0.01)
    view_flip: bool = setting("each view also mirrored")
    view_confidence: float = setting("detections of a view below this score are left out", low=0, high=1)
    instance_confidence: float = setting("gamma: teacher instances from this score are labels", low=0, high=1)
    confidence_step: float = setting("growth of gamma per round; 0 as CUPS released it", low=0, high=1)
    semantic_confidence: float = setting(
        "zeta: pixels below this share of their class's largest probability are void", low=0, high=1
    )
    next_best: bool = setting(
        "a pixel below that takes the next class that is above (CUPS) instead of becoming void"
    )
    ignore_uncovered_things: bool = setting(
        "pixels that the teacher calls thing without an instance are void"
    )
    min_object_px: int = setting("targets with fewer pixels are left out", low=1)
    keep_in_memory: bool = setting("keep decoded images as uint8 in memory")
    checkpoint_every: int = setting("steps between resumable checkpoints", low=1)
    picture_every: int = setting("steps between pictures of self-labels and predictions; 0 for none", low=0)
    optimiser: OptimiserSettings = section(OptimiserSettings, "AdamW and its schedule")
    augmentation: SelfAugmentationSettings = section(SelfAugmentationSettings, "photometry and geometry")
    copy_paste: PasteSettings = section(PasteSettings, "pasting of the batch's own labels")
    drop_loss: DropLossSettings = section(DropLossSettings, "DropLoss; CUPS has none in this training")
