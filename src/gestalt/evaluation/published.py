"""Published numbers of unsupervised panoptic segmentation, to stand beside ours in the report.

Percent. Every record names the protocol it was measured with; only numbers of one protocol belong in one
column.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedResult:
    """One row of a published table.

    Attributes:
        dataset: Whose raw ids the benchmark uses, as in the protocol.
        method: Name of the system.
        protocol: Name of our protocol with the same rules, or a short description.
        metrics: Percent by metric name.
        source: Where the number stands.
    """

    dataset: str
    method: str
    protocol: str
    metrics: dict[str, float]
    source: str


CUPS_PAPER = "Hahn et al., Scene-Centric Unsupervised Panoptic Segmentation, CVPR 2025"
U2SEG_PAPER = "Niu et al., Unsupervised Universal Image Segmentation, CVPR 2024, as evaluated by Hahn et al."

PUBLISHED: tuple[PublishedResult, ...] = (
    PublishedResult(
        "cityscapes",
        "CUPS",
        "cityscapes19",
        {"PQ": 27.8, "SQ": 57.4, "RQ": 35.2, "PQ_thing": 17.7, "PQ_stuff": 35.1},
        CUPS_PAPER,
    ),
    PublishedResult(
        "cityscapes",
        "U2Seg",
        "cityscapes19",
        {"PQ": 18.4, "SQ": 55.8, "RQ": 22.7, "PQ_thing": 10.2, "PQ_stuff": 24.3},
        U2SEG_PAPER,
    ),
    PublishedResult(
        "cityscapes",
        "DepthG + CutLER",
        "cityscapes19",
        {"PQ": 16.1, "SQ": 45.4, "PQ_thing": 3.0, "PQ_stuff": 25.7},
        f"quoted by {CUPS_PAPER}",
    ),
    PublishedResult("kitti_panoptic", "CUPS", "kitti_panoptic19", {"PQ": 25.5}, CUPS_PAPER),
    PublishedResult("kitti_panoptic", "U2Seg", "kitti_panoptic19", {"PQ": 20.6}, U2SEG_PAPER),
    PublishedResult("bdd", "CUPS", "bdd19", {"PQ": 19.9}, CUPS_PAPER),
    PublishedResult("bdd", "U2Seg", "bdd19", {"PQ": 15.8}, U2SEG_PAPER),
    PublishedResult("muses", "CUPS", "muses19", {"PQ": 24.4}, CUPS_PAPER),
    PublishedResult("muses", "U2Seg", "muses19", {"PQ": 20.3}, U2SEG_PAPER),
    PublishedResult("waymo", "CUPS", "waymo19", {"PQ": 26.4}, CUPS_PAPER),
    PublishedResult("waymo", "U2Seg", "waymo19", {"PQ": 19.8}, U2SEG_PAPER),
    PublishedResult("mots", "CUPS", "mots2", {"PQ": 67.8}, CUPS_PAPER),
    PublishedResult("mots", "U2Seg", "mots2", {"PQ": 50.7}, U2SEG_PAPER),
    PublishedResult(
        "cityscapes",
        "CUPS",
        "cityscapes27_semantic320",
        {"mIoU": 26.8, "pixel_accuracy": 83.2},
        CUPS_PAPER,
    ),
    PublishedResult(
        "cityscapes",
        "DepthG",
        "cityscapes27_semantic320",
        {"mIoU": 23.1},
        CUPS_PAPER,
    ),
)


def published_for(dataset: str) -> list[PublishedResult]:
    """The published rows of a benchmark; empty where there are none."""
    return [result for result in PUBLISHED if result.dataset == dataset]
