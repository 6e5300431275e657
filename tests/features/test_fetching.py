"""Fetching from a folder and from a server of our own: going on, checking, converting."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from gestalt.errors import ConfigError, DataError
from gestalt.features import fetching
from gestalt.features.catalogue import PublishedBackbone
from gestalt.features.fetching import download, fetch_backbone
from gestalt.features.loading import load_features
from gestalt.features.vit import VisionTransformer, VitLayout

LAYOUT = VitLayout(patch_size=4, width=64, depth=1, heads=1, grid=5)
ARCHITECTURE = "ViT 64 wide, 1 deep, patch 4"


@dataclass
class Shop:
    """A server with one file; ``ends_after`` cuts a reply short."""

    url: str
    content: bytes
    knows_ranges: bool = True
    ends_after: int | None = None
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(fetching, "PIECE_BYTES", 1000)
    offered = Shop("", bytes(range(256)) * 40)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer with the file, or with what of it was asked for."""
            wanted = self.headers.get("Range")
            offered.asked.append(wanted)
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and offered.knows_ranges else 0
            if self.path != "/w.pth":
                self.send_error(404)
                return
            if start >= len(offered.content):
                self.send_error(416)
                return
            body = offered.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: offered.ends_after])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    offered.url = f"http://127.0.0.1:{server.server_port}/w.pth"
    yield offered
    server.shutdown()
    server.server_close()
    thread.join()


def published(folder: Path, *, url: str | None = None, **values: object) -> PublishedBackbone:
    """An entry for a small network, whose file lies in ``folder``."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    torch.save(VisionTransformer(LAYOUT).state_dict(), folder / "w.pth")
    entry = {"architecture": ARCHITECTURE, "file": "w.pth", "licence": "MIT", "tensors": None, "sha256": None}
    return PublishedBackbone(name="small", url=url, **{**entry, **values})


def test_a_download_is_whole(shop: Shop, tmp_path: Path) -> None:
    path = download(shop.url, tmp_path / "new" / "w.pth")
    assert path.read_bytes() == shop.content
    assert [item.name for item in path.parent.iterdir()] == ["w.pth"]
    assert shop.asked == [None]


def test_an_interrupted_download_goes_on(shop: Shop, tmp_path: Path) -> None:
    shop.ends_after = 2500
    with pytest.raises(DataError, match=r"did not come whole.*go on from there"):
        download(shop.url, tmp_path / "w.pth")
    held = (tmp_path / "w.pth.part").stat().st_size
    assert 0 < held <= 2500
    assert not (tmp_path / "w.pth").exists()
    shop.ends_after = None
    assert download(shop.url, tmp_path / "w.pth").read_bytes() == shop.content
    assert shop.asked == [None, f"bytes={held}-"]


def test_a_server_without_ranges_begins_again(shop: Shop, tmp_path: Path) -> None:
    shop.knows_ranges = False
    (tmp_path / "w.pth.part").write_bytes(b"something older")
    assert download(shop.url, tmp_path / "w.pth").read_bytes() == shop.content


def test_a_part_that_is_the_whole_is_taken(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "w.pth.part").write_bytes(shop.content)
    assert download(shop.url, tmp_path / "w.pth").read_bytes() == shop.content


def test_missing_pages_and_servers_are_named(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"other did not come whole: the server answers 404.*--from"):
        download(shop.url.replace("w.pth", "other"), tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"did not come whole.*refused"):
        download("http://127.0.0.1:9/w.pth", tmp_path / "new" / "w.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_backbone_from_a_folder(tmp_path: Path) -> None:
    entry = published(tmp_path / "held")
    fetched = fetch_backbone(entry, tmp_path / "out", origin=tmp_path / "held")
    digest = hashlib.sha256((tmp_path / "held" / "w.pth").read_bytes()).hexdigest()
    assert (fetched.sha256, fetched.is_verified) == (digest, False)
    assert sorted(item.name for item in fetched.folder.iterdir()) == ["card.json", "weights.safetensors"]
    card = json.loads((fetched.folder / "card.json").read_text())
    assert (card["published"], card["source"]["sha256"], card["source"]["file"]) == ("small", digest, "w.pth")
    assert load_features(fetched.folder)(torch.rand(1, 3, 8, 8)).shape == (1, 64, 2, 2)


def test_a_backbone_from_a_server(shop: Shop, tmp_path: Path) -> None:
    entry = published(tmp_path / "held", url=shop.url)
    shop.content = (tmp_path / "held" / "w.pth").read_bytes()
    entry = published(tmp_path / "held", url=shop.url, sha256=hashlib.sha256(shop.content).hexdigest())
    fetched = fetch_backbone(entry, tmp_path / "out")
    assert fetched.is_verified
    assert sorted(item.name for item in fetched.folder.iterdir()) == ["card.json", "weights.safetensors"]


def test_a_file_that_is_another_is_refused(shop: Shop, tmp_path: Path) -> None:
    held, out = tmp_path / "held", tmp_path / "out"
    with pytest.raises(DataError, match="SHA-256 must begin with 0123abcd"):
        fetch_backbone(published(held, sha256="0123abcd"), out, origin=held)
    with pytest.raises(DataError, match=f"must hold ViT-S/8, as small is. Got: {ARCHITECTURE}"):
        fetch_backbone(published(held, architecture="ViT-S/8"), out, origin=held)
    assert (held / "w.pth").exists()
    assert not out.exists()
    # A download that is not what it should be is not kept for the next attempt.
    with pytest.raises(DataError, match="cannot be read as weights"):
        fetch_backbone(published(held, url=shop.url), out)
    assert list(out.iterdir()) == []


def test_what_cannot_be_fetched_says_how(tmp_path: Path) -> None:
    entry = published(tmp_path / "held")
    with pytest.raises(ConfigError, match=r"hand it out on request \(MIT\).*--from"):
        fetch_backbone(entry, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "else.pth").touch()
    with pytest.raises(DataError, match=r"empty must hold w.pth. Got: else.pth"):
        fetch_backbone(entry, tmp_path / "out", origin=tmp_path / "empty")
    with pytest.raises(DataError, match=r"nowhere must hold w.pth. Got: nothing"):
        fetch_backbone(entry, tmp_path / "out", origin=tmp_path / "nowhere")
