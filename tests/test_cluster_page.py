"""The page of all pseudo-classes."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from gestalt.cluster_page import ID_LETTERS, compose_cluster_page
from gestalt.motion.page import draw_page
from gestalt.semantics.picture import THUMBNAIL_SIZE, ClusterGallery


def gallery() -> ClusterGallery:
    """Three pseudo-classes, the last of which is in no frame."""
    found = ClusterGallery(3, 2)
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    for number, sure in enumerate((0.5, 0.75, 0.25)):
        semantic_map = np.zeros((60, 90), np.uint8)
        semantic_map[30:, : 30 * (number + 1)] = 1
        found.add(
            f"a_name_of_a_frame_that_is_long_{number}",
            image,
            semantic_map,
            np.full((60, 90), sure, np.float32),
        )
    return found


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_a_row_per_pseudo_class_says_share_row_and_examples() -> None:
    said = texts(compose_cluster_page(gallery(), "The pseudo-classes of monday"))
    assert "The pseudo-classes of monday" in said
    for words in (
        "pseudo-class 0", "pseudo-class 1", "pseudo-class 2", "share 66.7%", "share 33.3%", "mean row 0.75",
        "confidence 0.46", "3 segments", "typical: 0.75", "largest: 2700 px", "uncertain: 0.25",
        "in none of the frames",
    ):  # fmt: skip
        assert words in said, words
    assert any(text.startswith("3 frames, 2 of 3 pseudo-classes used") for text in said)


def test_long_names_of_frames_keep_their_ends() -> None:
    said = [text for text in texts(compose_cluster_page(gallery(), "")) if text.startswith("…")]
    assert said
    assert all(text.endswith(("_0", "_1", "_2")) and len(text) == ID_LETTERS for text in said)


def test_every_example_is_drawn_as_it_was_kept() -> None:
    found = gallery()
    figure = compose_cluster_page(found, "")
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    kept = [one.thumbnail for entry in found.classes for kind in entry.examples.values() for one in kind]
    assert len(shown) == len(kept) == 12
    assert all((a == b).all() for a, b in zip(shown, kept, strict=True))
    assert shown[0].shape == (*THUMBNAIL_SIZE, 3)
    assert draw_page(figure).ndim == 3
