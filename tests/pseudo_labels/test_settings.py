"""The paper's numbers, and ranges that are checked."""

import pytest

from gestalt.config.presets import default_settings
from gestalt.errors import ConfigError


def test_the_paper_preset_holds_the_published_numbers() -> None:
    labels = default_settings("pseudo_labels", "paper")
    assert (labels.proposals, labels.border_px, labels.min_area_px) == ("motion", 32, 64)
    assert default_settings("thing_stuff").psi == 0.08
    cut = default_settings("normalized_cut", "paper")
    assert (cut.image_size, cut.patch_px, cut.tau, cut.weak_edge) == (480, 8, 0.15, 1e-5)
    assert (cut.max_masks, cut.min_area_share, cut.min_refined_iou) == (3, 0.01, 0.5)


def test_the_border_of_the_embedded_preset_is_the_same_share_of_the_width() -> None:
    embedded = default_settings("pseudo_labels").border_px / 384
    assert embedded == pytest.approx(32 / 1280, abs=0.002)


def test_an_unknown_source_of_proposals_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pseudo_labels.proposals must be one of motion, normalized_cut"):
        default_settings("pseudo_labels", proposals="magic")
