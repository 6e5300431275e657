import numpy as np

from gestalt.audit.page import Html, embed, number, page, table, tag
from gestalt.data.images import decode_png


def test_text_is_escaped_and_html_is_not() -> None:
    text = table(["a"], [["<b>"], [Html("<i>x</i>")]])
    assert "&lt;b&gt;" in text
    assert "<i>x</i>" in text


def test_rows_carry_their_kind() -> None:
    text = table(["a"], [["x"], ["y"], ["z"]], kinds=["", "spread", ""])
    assert text.count("<tr>") == 3
    assert '<tr class="spread"><td>y</td>' in text
    assert '<tr class="strong"><td>x</td>' in table(["a"], [["x"], ["y"]], strong=[0])


def test_numbers_for_people() -> None:
    assert number(1234567) == "1,234,567"
    assert number(3.14159) == "3.1"
    assert number(None) == number(float("nan")) == "\N{EN DASH}"


def test_a_page_loads_nothing_from_elsewhere() -> None:
    text = page("title & more", [tag("critical")], script="1 < 2")
    assert "<title>title &amp; more</title>" in text
    assert "http" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_embedded_labels_are_exact() -> None:
    import base64

    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    content = embed(picture, is_labels=True).removeprefix("data:image/png;base64,")
    np.testing.assert_array_equal(decode_png(base64.b64decode(content), "picture"), picture)
    assert embed(picture).startswith("data:image/jpeg;base64,")
