import io
import pickle
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from gestalt.data.images import decode_png
from gestalt.data.sharded_run import run_sharded
from gestalt.data.shards import ShardFolder, append_member
from gestalt.errors import DataError
from tests.data.work import draw, items


@pytest.fixture
def folder(tmp_path):
    run_sharded(
        items(12),
        draw,
        out_dir=tmp_path / "out",
        cache_dir=tmp_path / "cache",
        key={},
        shard_size=5,
        open_executor=None,
        max_failed_share=1,
        label="test",
    )
    return tmp_path / "out"


def test_every_map_comes_back_as_it_was_made(folder):
    shards = ShardFolder(folder)
    assert shards.frame_ids == [f"f{i:04d}" for i in range(12) if i != 3]
    assert shards.kinds == ("instance", "semantic")
    streamed = dict(shards.stream())
    assert list(streamed) == shards.frame_ids
    for item in items(12):
        if item.number == 3:
            continue
        for kind, expected in draw(item).maps.items():
            np.testing.assert_array_equal(shards.read_map(item.frame_id, kind), expected)
            np.testing.assert_array_equal(streamed[item.frame_id][kind], expected)
            assert streamed[item.frame_id][kind].dtype == expected.dtype


def test_a_stream_of_one_kind_holds_only_that(folder):
    assert {tuple(maps) for _, maps in ShardFolder(folder).stream("semantic")} == {("semantic",)}


def test_plain_tar_reads_the_archives(folder):
    names = []
    for archive in sorted((folder / "shards").iterdir()):
        with tarfile.open(archive) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
                decode_png(tar.extractfile(member).read(), member.name)
                names.append(member.name)
    assert names == sorted(names)
    assert len(names) == 22


def test_the_index_gives_the_bytes_of_each_member(folder):
    for row in pq.read_table(folder / "index.parquet").to_pylist():
        with tarfile.open(folder / "shards" / row["shard"]) as tar:
            content = tar.extractfile(row["member"]).read()
        whole = (folder / "shards" / row["shard"]).read_bytes()
        assert whole[row["offset"] : row["offset"] + row["size"]] == content


def test_long_names_fit_the_archive():
    archive = io.BytesIO()
    name = "x" * 180 + ".semantic.png"
    offset = append_member(archive, name, b"abc")
    assert archive.getvalue()[offset : offset + 3] == b"abc"
    archive.write(b"\0" * 1024)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        assert tar.getnames() == [name]


def test_a_failure_is_a_record_and_has_no_map(folder):
    shards = ShardFolder(folder)
    frames = shards.frames().set_index("frame_id")
    assert frames.loc["f0003", "status"] == "failed"
    assert frames.loc["f0003", "reason"] == "ValueError: frame 3 cannot be drawn"
    assert frames.loc["f0005", "status"] == "empty"
    assert frames.loc["f0004", "status"] == "ok"
    with pytest.raises(DataError, match=r"holds no map 'semantic' of frame 'f0003'; it has 11 frames"):
        shards.read_map("f0003", "semantic")


def test_a_damaged_archive_is_noticed(folder):
    shards = ShardFolder(folder)
    member = shards._member("f0000", "instance")
    path = folder / "shards" / member.shard
    content = bytearray(path.read_bytes())
    content[member.offset + member.size // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"00000\.tar:f0000\.instance\.png is damaged"):
        shards.read_map("f0000", "instance")
    path.unlink()
    with pytest.raises(DataError, match=r"00000\.tar is missing although the index names it"):
        shards.read_map("f0000", "instance")


def test_a_folder_that_is_none_says_so(tmp_path):
    with pytest.raises(DataError, match=r"is no shard folder: index\.parquet is missing"):
        ShardFolder(tmp_path)


def test_the_fingerprint_changes_with_any_map(folder, tmp_path):
    before = ShardFolder(folder).fingerprint()

    def other(item):
        result = draw(item)
        result.maps["semantic"][0, 0] += item.number == 7
        return result

    run_sharded(
        items(12),
        other,
        out_dir=tmp_path / "out",
        cache_dir=tmp_path / "cache",
        key={},
        shard_size=5,
        open_executor=None,
        max_failed_share=1,
        label="test",
    )
    assert ShardFolder(folder).fingerprint() != before


def test_a_folder_can_be_sent_to_a_worker(folder):
    back = pickle.loads(pickle.dumps(ShardFolder(folder)))
    np.testing.assert_array_equal(
        back.read_map("f0001", "semantic"), ShardFolder(folder).read_map("f0001", "semantic")
    )
