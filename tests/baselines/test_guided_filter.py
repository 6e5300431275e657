"""The guided filter: exact cases and a plain reference."""

import numpy as np
import pytest

from gestalt.baselines.guided_filter import guided_filter


def reference(guide: np.ndarray, values: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """Loops over windows with mirrored borders (without repeating the edge)."""

    def mean(array: np.ndarray) -> np.ndarray:
        padded = np.pad(array.astype(np.float64), radius, mode="symmetric")
        side = 2 * radius + 1
        windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
        return windows.mean((2, 3))

    slope = (mean(guide * values) - mean(guide) * mean(values)) / (
        mean(guide * guide) - mean(guide) ** 2 + epsilon
    )
    offset = mean(values) - slope * mean(guide)
    return mean(slope) * guide + mean(offset)


@pytest.mark.parametrize("radius", [1, 3])
def test_it_equals_windows_by_hand(radius: int) -> None:
    generator = np.random.default_rng(radius)
    guide, values = generator.random((2, 20, 30)).astype(np.float32)
    ours = guided_filter(guide, values, radius, 0.01)
    assert np.allclose(ours, reference(guide, values, radius, 0.01), atol=1e-3)


def test_a_constant_stays_and_an_edge_of_the_guide_is_followed() -> None:
    guide = np.zeros((20, 20), np.float32)
    guide[:, 10:] = 1
    assert np.allclose(guided_filter(guide, np.full_like(guide, 0.3), 3, 1e-4), 0.3, atol=1e-4)
    sloppy = np.zeros((20, 20), np.float32)
    sloppy[:, 9:] = 1
    assert (guided_filter(guide, sloppy, 3, 1e-4)[:, 9] < 0.5).all()
