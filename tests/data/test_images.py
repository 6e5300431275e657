import re
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gestalt.data.images import decode_png, encode_png, inspect_image, read_image, read_png, write_png
from gestalt.errors import DataError, ShapeError

CHANNELS = st.sampled_from([(), (3,), (4,)])


@given(data=st.data(), dtype=st.sampled_from([np.uint8, np.uint16]), channels=CHANNELS)
def test_a_png_gives_back_what_was_encoded(data, dtype, channels):
    size = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    array = data.draw(arrays(dtype, (*size, *channels)))
    back = decode_png(encode_png(array), "it")
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    assert encode_png(array) == encode_png(array.copy())


def test_channels_are_stored_in_rgb_order(tmp_path):
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    write_png(tmp_path / "red.png", red)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "red.png"))[0, 0], [0, 0, 200])
    np.testing.assert_array_equal(read_image(tmp_path / "red.png"), red)
    np.testing.assert_array_equal(read_png(tmp_path / "red.png"), red)


def test_grey_is_repeated_and_alpha_dropped(tmp_path):
    write_png(tmp_path / "grey.png", np.full((3, 4), 7, np.uint8))
    assert read_image(tmp_path / "grey.png").shape == (3, 4, 3)
    assert (read_image(tmp_path / "grey.png") == 7).all()
    write_png(tmp_path / "alpha.png", np.full((3, 4, 4), 9, np.uint8))
    assert read_image(tmp_path / "alpha.png").shape == (3, 4, 3)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2), np.int32), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2), np.uint8)]
)
def test_what_a_png_cannot_hold_is_refused(array):
    with pytest.raises(ShapeError, match="Got"):
        encode_png(array)


@pytest.fixture
def jpeg(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.jpg"), noise)
    return tmp_path / "a.jpg"


@pytest.fixture
def png(tmp_path):
    write_png(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    return tmp_path / "a.png"


def test_the_size_is_read_without_decoding(jpeg, png):
    assert inspect_image(jpeg) == inspect_image(png) == (40, 60)


@pytest.mark.parametrize("name", ["jpeg", "png"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_file_cut_short_is_found_by_every_reader(name, share, request):
    path = request.getfixturevalue(name)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for read in (inspect_image, read_image):
        with pytest.raises(DataError, match=f"unreadable image: {re.escape(str(path))}"):
            read(path)


def test_a_damaged_byte_is_found_by_its_checksum(png):
    content = bytearray(png.read_bytes())
    content[len(content) // 2] ^= 1
    png.write_bytes(content)
    with pytest.raises(DataError, match="is damaged at byte"):
        inspect_image(png)
    assert inspect_image(png, check_content=False) == (40, 60)


def test_a_png_whose_chunk_claims_too_much_is_damaged(png):
    content = bytearray(png.read_bytes())
    content[33:37] = struct.pack(">I", 10**9)
    png.write_bytes(content)
    with pytest.raises(DataError, match="is damaged at byte 33"):
        inspect_image(png)


def test_other_files_and_missing_files_say_so(tmp_path):
    with pytest.raises(DataError, match=r"missing image: .*no\.png does not exist"):
        read_image(tmp_path / "no.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match="neither PNG nor JPEG"):
        read_image(tmp_path / "text.png")
    with pytest.raises(DataError, match="is not a PNG"):
        read_png(tmp_path / "text.png")
    with pytest.raises(DataError, match="unreadable image"):
        read_image(tmp_path)


def test_writing_leaves_nothing_beside_the_file(tmp_path):
    write_png(tmp_path / "deep" / "a.png", np.zeros((2, 2), np.uint8))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]
