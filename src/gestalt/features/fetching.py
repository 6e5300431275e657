"""Fetch a published backbone: from its authors when asked to, or from a folder where there is no network."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gestalt.data.atomic_files import explain_full_disk
from gestalt.data.weight_files import hash_file
from gestalt.errors import ConfigError, DataError
from gestalt.features.backbones import read_backbone
from gestalt.features.catalogue import PublishedBackbone
from gestalt.features.dense import save_features
from gestalt.runtime import progress

PIECE_BYTES = 2**20
TIMEOUT_S = 30.0
PARTIAL, RANGE_NOT_SATISFIABLE = 206, 416


@dataclass(frozen=True)
class Fetched:
    """A backbone that lies ready in a folder.

    Attributes:
        folder: Holds weights and card, as ``load_features`` reads them.
        sha256: Of the authors' file.
        is_verified: The hash, or how it begins, was known before and is the same.
    """

    folder: Path
    sha256: str
    is_verified: bool


def fetch_backbone(entry: PublishedBackbone, out: Path, *, origin: Path | None = None) -> Fetched:
    """Bring a published backbone into the form that ``load_features`` reads.

    A download that was interrupted goes on where it stopped. Nothing is written into ``out`` before the file was
    checked, except the unfinished download.

    Args:
        entry: What to fetch.
        out: Folder to write.
        origin: Folder that holds the authors' file under its own name; None downloads it.

    Raises:
        DataError: The file is missing, cannot be downloaded, or is not what the catalogue says.
        ConfigError: Its authors hand it out on request only, and no folder was named.
    """
    if origin is not None:
        path = origin / entry.file
        if not path.is_file():
            held = ", ".join(sorted(item.name for item in origin.glob("*"))[:8]) if origin.is_dir() else ""
            raise DataError(f"{origin} must hold {entry.file}. Got: {held or 'nothing'}")
        return _convert(entry, path, out)
    if entry.url is None:
        raise ConfigError(
            f"the authors of {entry.name} hand it out on request ({entry.licence}); ask them for {entry.file} and "
            "name its folder with --from"
        )
    path = download(entry.url, out / entry.file)
    try:
        fetched = _convert(entry, path, out)
    finally:
        # Converted or useless: a wrong file would be taken for a finished download the next time.
        path.unlink()
    return fetched


def download(url: str, path: Path) -> Path:
    """Download a file, going on where an earlier attempt stopped.

    Args:
        url: http or https.
        path: Gets the whole file; until then what has come lies beside it as ``<name>.part``.

    Raises:
        DataError: The network or the disk fails; what has come is kept.
    """
    if path.is_file():
        return path
    part = path.with_name(f"{path.name}.part")
    n_held = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={n_held}-"} if n_held else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            part.parent.mkdir(parents=True, exist_ok=True)
            continues = response.status == PARTIAL
            n_wanted = int(response.headers.get("Content-Length") or -1)
            pieces = -(-n_wanted // PIECE_BYTES) if n_wanted >= 0 else None
            with explain_full_disk(part), part.open("ab" if continues else "wb") as file:
                for piece in progress(_read_pieces(response), label=path.name, total=pieces, unit="MiB"):
                    file.write(piece)
                    n_wanted -= len(piece)
    except urllib.error.HTTPError as error:
        if error.code != RANGE_NOT_SATISFIABLE or not n_held:
            raise DataError(_explain(url, f"the server answers {error.code} {error.reason}")) from error
        # There is nothing after what we have: it is whole.
        n_wanted = 0
    except (OSError, http.client.HTTPException) as error:
        raise DataError(_explain(url, getattr(error, "reason", None) or repr(error))) from error
    if n_wanted > 0:
        raise DataError(_explain(url, f"{n_wanted} bytes are missing"))
    part.replace(path)
    return path


def _read_pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := response.read(PIECE_BYTES):
        yield piece


def _explain(url: str, reason: object) -> str:
    return (
        f"{url} did not come whole: {reason}. Run the same command again to go on from there, or download the file "
        "elsewhere and name its folder with --from"
    )


def _convert(entry: PublishedBackbone, path: Path, out: Path) -> Fetched:
    sha256 = hash_file(path)
    if entry.expected_hash and not sha256.startswith(entry.expected_hash):
        raise DataError(
            f"{path} is not the file that {entry.name} names: SHA-256 must begin with {entry.expected_hash}. "
            f"Got: {sha256}"
        )
    features = read_backbone(path)
    found = features.card()["architecture"]
    if found != entry.architecture:
        raise DataError(f"{path} must hold {entry.architecture}, as {entry.name} is. Got: {found}")
    save_features(features, out, record={"published": entry.name})
    return Fetched(out, sha256, is_verified=entry.expected_hash is not None)
