"""Intersection tables as Parquet files: every later assignment, convention or class mask without the pixels."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gestalt.data.atomic_files import written_aside
from gestalt.errors import DataError
from gestalt.evaluation.intersections import IntersectionTable

COLUMNS = tuple(field.name for field in dataclasses.fields(IntersectionTable))[1:]
# Key of the image names in the file's metadata.
IMAGE_IDS = b"gestalt.image_ids"
# Fixed here so that equal tables have equal bytes.
COMPRESSION, COMPRESSION_LEVEL = "zstd", 3


@dataclass(frozen=True)
class TableFiles:
    """Parts of a table that is too large for memory, as ``evaluate_table`` takes them: read anew each time.

    Attributes:
        paths: In ascending order of their images.
    """

    paths: tuple[Path, ...]

    def __iter__(self) -> Iterator[IntersectionTable]:
        return (read_table(path) for path in self.paths)


def write_table(path: Path, table: IntersectionTable) -> None:
    """Write a table aside, then rename it; equal tables give equal bytes.

    Each column has the narrowest unsigned type that holds it: a few bytes per row instead of 56.

    Raises:
        DataError: The disk is full.
    """
    columns = {name: getattr(table, name) for name in COLUMNS}
    narrow = {
        name: column if column.dtype == np.bool_ else column.astype(np.min_scalar_type(column.max(initial=0)))
        for name, column in columns.items()
    }
    names = json.dumps(table.image_ids, ensure_ascii=False).encode("utf-8")
    content = pa.table(narrow).replace_schema_metadata({IMAGE_IDS: names})
    with written_aside(path) as aside:
        pq.write_table(content, aside, compression=COMPRESSION, compression_level=COMPRESSION_LEVEL)


def read_table(path: Path) -> IntersectionTable:
    """Read what ``write_table`` wrote.

    Raises:
        DataError: The file is missing, broken or no intersection table.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; `gestalt evaluate --out` writes it")
    try:
        content = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no Parquet file, or cut short: {error}") from error
    metadata = content.schema.metadata or {}
    if IMAGE_IDS not in metadata or set(content.column_names) != set(COLUMNS):
        raise DataError(
            f"{path} must hold an intersection table with the columns {', '.join(COLUMNS)}. "
            f"Got: {', '.join(content.column_names)}"
        )
    columns = {name: content.column(name).to_numpy() for name in COLUMNS}
    return IntersectionTable(
        tuple(json.loads(metadata[IMAGE_IDS])),
        **{
            name: column if column.dtype == np.bool_ else column.astype(np.int64)
            for name, column in columns.items()
        },
    )
