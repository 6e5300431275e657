from pathlib import Path

import pytest

from flows.parameters import remove_batch, set_parameter

TEXT = """# what people wrote
seed: 0
batches: [monday, tuesday]
guided:
  # where training starts
  initial_network: ""
  steps: 500
"""


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    return path


def test_one_value_changes_and_every_other_byte_stays(params: Path) -> None:
    set_parameter("guided.initial_network", "models/champions/abc", params)
    assert params.read_text() == TEXT.replace('""', '"models/champions/abc"')


def test_a_key_that_no_stage_knows_is_refused(params: Path) -> None:
    with pytest.raises(KeyError, match=r"no key guided\.start"):
        set_parameter("guided.start", 1, params)
    assert params.read_text() == TEXT


def test_a_batch_is_taken_out_once(params: Path) -> None:
    remove_batch("tuesday", params)
    remove_batch("tuesday", params)
    assert params.read_text() == TEXT.replace("monday, tuesday", "monday")
