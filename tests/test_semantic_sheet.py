"""The sheet of pseudo-classes: what is drawn, where, and what is said when something is missing."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from gestalt.errors import ConfigError
from gestalt.features.dense import FeatureGrid
from gestalt.motion.page import draw_page
from gestalt.runtime import torch_generator
from gestalt.semantic_sheet import SeenFrame, compose_semantic_sheet, fit_feature_colours
from gestalt.semantics.picture import class_colours, colour_classes, most_probable
from gestalt.semantics.probe import SemanticViews

HEIGHT, WIDTH, STRIDE, CLASSES = 42, 66, 4, 5


def log_prob(seed: int) -> torch.Tensor:
    logits = torch.randn(CLASSES, 6, 9, generator=torch_generator(seed, "views"))
    pixels = torch.nn.functional.interpolate(4 * logits[None], (HEIGHT, WIDTH), mode="bilinear")[0]
    return torch.log_softmax(pixels, 0)


@pytest.fixture(scope="module")
def seen() -> SeenFrame:
    """Features as of a transformer, every view."""
    generator = torch_generator(0, "seen")
    rows, columns = -(-HEIGHT // STRIDE), -(-WIDTH // STRIDE)
    grid = FeatureGrid(
        torch.randn(1, 8, rows, columns, generator=generator),
        torch.ones(1, rows, columns, dtype=torch.bool),
        keys=torch.randn(1, 8, rows, columns, generator=generator),
        cls=torch.randn(1, 8, generator=generator),
        cls_attention=torch.rand(1, 3, rows, columns, generator=generator),
    )
    weight = torch.linspace(0.1, 0.9, HEIGHT)[:, None].expand(HEIGHT, WIDTH)
    views = SemanticViews(log_prob(1), log_prob(2), weight, log_prob(3), log_prob(4))
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    disparity = np.full((HEIGHT, WIDTH), 3, np.float32)
    disparity[:10] = 0
    return SeenFrame("street_07", image, disparity, grid, views, STRIDE)


def compose(seen: SeenFrame, pixel: tuple[int, int] | None = None) -> Figure:
    return compose_semantic_sheet(seen, fit_feature_colours([seen.grid]), pixel)


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def texts(figure: Figure) -> list[str]:
    return [" ".join(text.get_text().split()) for text in figure.findobj(Text) if text.get_text()]


def panel(figure: Figure, title: str) -> np.ndarray:
    """The pixels that the panel with this title shows."""
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left").startswith(title)]
    return np.asarray(axes.images[0].get_array())


def plain(seen: SeenFrame) -> SeenFrame:
    """Features without keys and attention; one view."""
    grid = FeatureGrid(seen.grid.tokens, seen.grid.valid)
    views = SemanticViews(seen.views.high, None, None, seen.views.high, None)
    return dataclasses.replace(seen, grid=grid, views=views, disparity=None)


def test_the_sheet_shows_everything_there_is(seen: SeenFrame) -> None:
    figure = compose(seen)
    starts = [title.split(":")[0] for title in titles(figure)]
    assert starts == [
        "left image, t", "disparity", "features", "keys of the last block", "attention of the whole image",
        *[title for title in starts if title.startswith("likeness")], "the image at half size", "full size",
        "fused by depth", "refined by the CRF", "weight of half size (alpha)", "confidence",
        "changed by the view at half size", "changed by the CRF", "pseudo-classes",
        "the pseudo-classes of this frame",
    ]  # fmt: skip
    assert sum(title.startswith("likeness") for title in starts) == 3
    np.testing.assert_array_equal(panel(figure, "left image"), seen.image)
    assert panel(figure, "features").shape == seen.image.shape
    assert draw_page(figure).ndim == 3


def test_views_have_the_same_colours_for_the_same_pseudo_class(seen: SeenFrame) -> None:
    figure, palette = compose(seen), class_colours(CLASSES)
    assert seen.views.low is not None
    assert seen.views.refined is not None
    for title, view in (
        ("the image at half size", seen.views.low),
        ("full size", seen.views.high),
        ("fused by depth", seen.views.fused),
        ("refined by the CRF", seen.views.refined),
        ("pseudo-classes", seen.views.refined),
    ):
        expected = colour_classes(seen.image, most_probable(view)[0], palette)
        np.testing.assert_array_equal(panel(figure, title), expected)


def test_the_chosen_pixel_is_marked_and_most_like_itself(seen: SeenFrame) -> None:
    figure = compose(seen, (41, 65))
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left") == "likeness to pixel 41,65"]
    crosses = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "+"]
    assert crosses == [(65, 41)] * 2
    hottest = np.asarray(axes.images[0].get_array())[41, 65].astype(int)
    assert hottest[0] > 100
    assert hottest[2] < 20


@pytest.mark.parametrize("pixel", [(HEIGHT, 0), (0, WIDTH)])
def test_a_pixel_outside_the_image_is_refused(seen: SeenFrame, pixel: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="lies outside the image of 42 rows and 66 columns"):
        compose(seen, pixel)


def test_changes_are_orange_and_counted(seen: SeenFrame) -> None:
    views = dataclasses.replace(seen.views, fused=seen.views.high.clone(), refined=seen.views.high.clone())
    views.refined[:, :21] = views.refined[:, :21].roll(1, 0)  # type: ignore[index, union-attr]
    figure = compose(dataclasses.replace(seen, views=views))
    assert "changed by the view at half size: 0.0%" in titles(figure)
    assert "changed by the CRF: 50.0%" in titles(figure)
    shown = panel(figure, "changed by the CRF").astype(int)
    assert (shown[:21, :, 0] - shown[:21, :, 2] > 30).all()
    assert (np.ptp(shown[21:], axis=2) == 0).all()


def test_what_is_missing_is_said(seen: SeenFrame) -> None:
    said = texts(compose(plain(seen)))
    for words in (
        "not known: the stage motion has not run on this frame",
        "these features have neither",
        "there is none: semantics.fusion is off",
        "there is one view: semantics.fusion is off",
        "there is no such view: semantics.fusion is off",
        "not refined: the CRF is off",
    ):
        assert words in said, words
    assert said.count("nothing: it is off") == 2
    nothing = dataclasses.replace(seen, disparity=np.zeros((HEIGHT, WIDTH), np.float32))
    assert any("there is one camera, or nothing was matched" in text for text in texts(compose(nothing)))


def test_the_table_lists_every_pseudo_class_of_the_frame_the_largest_first(seen: SeenFrame) -> None:
    figure = compose(seen)
    semantic_map, _ = most_probable(seen.views.final)
    shares = np.bincount(semantic_map.ravel(), minlength=CLASSES) / semantic_map.size
    said = [text for text in texts(figure) if re.fullmatch(r"[\d.]+%", text)]
    assert said == [f"{share:.1%}" for share in sorted(shares[shares > 0], reverse=True)]
    assert f"street_07: {(shares > 0).sum()} of {CLASSES} pseudo-classes" in " ".join(texts(figure))


def test_an_image_smaller_than_a_cell_can_be_drawn() -> None:
    views = SemanticViews(log_prob(1)[:, :2, :3], None, None, log_prob(1)[:, :2, :3], None)
    grid = FeatureGrid(torch.ones(1, 8, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool))
    tiny = SeenFrame("dot", np.zeros((2, 3, 3), np.uint8), None, grid, views, STRIDE)
    assert draw_page(compose(tiny)).ndim == 3
