"""Which published backbones there are: where their authors keep them, under which licence, how large they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gestalt.errors import ConfigError

CATALOGUE_FILE = Path(__file__).parent / "catalogue.yaml"
UNKNOWN_LICENCE = "unknown"
BYTES_OF_A_NUMBER = 4
# torch's hub ends a file's name with the first digits of its SHA-256.
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.[a-z]+$")


@dataclass(frozen=True)
class PublishedBackbone:
    """An entry of the catalogue.

    Attributes:
        name: What ``gestalt weights fetch`` calls it.
        architecture: As papers or timm name it.
        file: The authors' file name.
        url: Where the authors keep it; None where they hand it out on request only.
        licence: SPDX name, or the licence's own.
        tensors: Numbers in its tensors; None where that was never counted.
        sha256: Of the file; None where it was never checked.
    """

    name: str
    architecture: str
    file: str
    url: str | None
    licence: str
    tensors: int | None
    sha256: str | None

    @property
    def megabytes(self) -> float | None:
        """Size of the tensors in float32, 10**6 bytes; the file is slightly larger."""
        return None if self.tensors is None else self.tensors * BYTES_OF_A_NUMBER / 1e6

    @property
    def expected_hash(self) -> str | None:
        """SHA-256 of the file, or how it begins; None where nothing is known of it."""
        named = HASH_IN_NAME.search(self.file)
        return self.sha256 or (named[1] if named else None)


@cache
def read_catalogue() -> dict[str, PublishedBackbone]:
    """All entries by name, in the order of the file."""
    from ruamel.yaml import YAML

    entries = YAML(typ="safe").load(CATALOGUE_FILE)
    return {name: PublishedBackbone(name, **entry) for name, entry in entries.items()}


def published_backbone(name: str) -> PublishedBackbone:
    """The entry called ``name``.

    Raises:
        ConfigError: There is none.
    """
    catalogue = read_catalogue()
    if name not in catalogue:
        raise ConfigError(f"no published backbone is called {name!r}; known: {', '.join(catalogue)}")
    return catalogue[name]


def licence_of(file_name: str, sha256: str) -> str:
    """The licence of a file of weights, by its hash or, said so, by its name; ``unknown`` otherwise."""
    try:
        entries = read_catalogue().values()
    except ImportError:
        # A machine that only trains may lack the reader of YAML; weights are of use to it all the same.
        return UNKNOWN_LICENCE
    for entry in entries:
        if entry.sha256 == sha256:
            return entry.licence
    for entry in entries:
        if entry.file == file_name:
            return f"{entry.licence} (by the file's name)"
    return UNKNOWN_LICENCE
