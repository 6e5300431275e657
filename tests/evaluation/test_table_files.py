from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gestalt.errors import DataError
from gestalt.evaluation.intersections import IntersectionTable, intersect, merge_tables
from gestalt.evaluation.panoptic_quality import panoptic_quality
from gestalt.evaluation.table_files import COLUMNS, read_table, write_table
from tests.evaluation.maps import random_map, shifted


def tables(n_images: int) -> list[IntersectionTable]:
    generator = np.random.default_rng(3)
    truths = [random_map(generator) for _ in range(n_images)]
    return [
        intersect(f"bild_ä{number}", shifted(truth, generator) if number else None, truth)
        for number, truth in enumerate(truths)
    ]


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    table = merge_tables(tables(5))
    write_table(tmp_path / "table.parquet", table)
    read = read_table(tmp_path / "table.parquet")
    assert read.image_ids == table.image_ids
    for name in COLUMNS:
        assert getattr(read, name).dtype == getattr(table, name).dtype
        assert getattr(read, name).tolist() == getattr(table, name).tolist()
    assert panoptic_quality(read, 5, "standard").to_dict([3, 4]) == panoptic_quality(
        table, 5, "standard"
    ).to_dict([3, 4])


def test_images_merged_in_any_order_have_the_same_bytes(tmp_path: Path) -> None:
    parts = tables(6)
    write_table(tmp_path / "a.parquet", merge_tables(parts))
    write_table(tmp_path / "b.parquet", merge_tables([merge_tables(parts[4:]), *parts[3::-1]]))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_large_numbers_of_videos_survive_and_small_ones_are_narrow(tmp_path: Path) -> None:
    table = tables(2)[1]
    large = dataclasses.replace(table, predicted_instance=table.predicted_instance + 2**40)
    write_table(tmp_path / "table.parquet", large)
    assert (
        read_table(tmp_path / "table.parquet").predicted_instance.tolist()
        == large.predicted_instance.tolist()
    )
    schema = pq.read_schema(tmp_path / "table.parquet")
    assert schema.field("n_pixels").type in (pa.uint8(), pa.uint16())
    assert schema.field("true_class").type == pa.uint8()


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.parquet does not exist; `gestalt evaluate --out` writes it"):
        read_table(tmp_path / "a.parquet")
    write_table(tmp_path / "a.parquet", tables(1)[0])
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match="no Parquet file, or cut short"):
        read_table(tmp_path / "b.parquet")
    pq.write_table(pa.table({"image": [1]}), tmp_path / "c.parquet")
    with pytest.raises(
        DataError, match=r"must hold an intersection table with the columns image, .* Got: image"
    ):
        read_table(tmp_path / "c.parquet")
