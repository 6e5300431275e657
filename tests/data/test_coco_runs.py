import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from gestalt.data.coco_runs import decode_runs, encode_runs
from gestalt.errors import DataError

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40))


def runs_of(mask: np.ndarray) -> np.ndarray:
    """Lengths of the runs, counted pixel by pixel."""
    lengths, inside = [0], False
    for pixel in mask.ravel(order="F").tolist():
        if pixel != inside:
            lengths.append(0)
            inside = pixel
        lengths[-1] += 1
    return np.array(lengths, np.int64)


def official(mask: np.ndarray) -> str:
    return str(coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode())


@given(masks)
def test_text_is_that_of_the_official_library_and_survives_a_round_trip(mask):
    lengths = runs_of(mask)
    text = encode_runs(lengths)
    assert text == official(mask)
    np.testing.assert_array_equal(decode_runs(text, mask.size), lengths)


@given(st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=12))
def test_lengths_of_any_size_survive(lengths):
    found = decode_runs(encode_runs(np.array(lengths)), sum(lengths))
    assert found.tolist() == lengths


def test_a_number_may_have_several_characters_and_a_sign():
    # 5 is one character; 40 = 8 + 32 * 1 is two; the fourth and fifth are differences: 5 - 40 and 41 - 5.
    assert encode_runs(np.array([5, 40, 5, 5, 41])) == "5X15mNT1"
    assert decode_runs("5X15mNT1", 96).tolist() == [5, 40, 5, 5, 41]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "characters from '0' to 'o' only"),
        ("4 4", "characters from '0' to 'o' only"),
        ("4p", "characters from '0' to 'o' only"),
        ("4é", "characters from '0' to 'o' only"),
        ("4X", "is cut short"),
        ("o" * 9 + "0", "more than 35 bits"),
        ("4", r"must have 9 pixels. Got: 4"),
        ("44444", r"must have 9 pixels. Got: "),
        # The fourth run is two pixels shorter than the second, which has one.
        ("711N", "must have 9 pixels. Got: a run of negative length"),
    ],
)
def test_what_is_no_encoding_of_the_mask_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        decode_runs(text, 9)
