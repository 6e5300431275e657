from pathlib import Path

import pytest

from flows.inbox import (
    Layout,
    batch_trouble,
    find_deliveries,
    forget_batch,
    layout_of,
    move_delivery,
    quarantine,
    read_pending,
    write_pending,
)


def deliver(inbox: Path, name: str, content: str = "video") -> Path:
    folder = inbox / name
    folder.mkdir(parents=True)
    (folder / "0001.png").write_text(content)
    return folder


def test_a_delivery_that_still_grows_waits(tmp_path: Path) -> None:
    deliver(tmp_path, "monday")
    growing = deliver(tmp_path, "tuesday")
    found = find_deliveries(tmp_path, sleep=lambda _: (growing / "0002.png").write_text("more") and None)
    assert [folder.name for folder in found] == ["monday"]
    assert [folder.name for folder in find_deliveries(tmp_path, sleep=lambda _: None)] == [
        "monday",
        "tuesday",
    ]


def test_equal_size_but_later_change_is_still_growing(tmp_path: Path) -> None:
    import os

    growing = deliver(tmp_path, "monday")
    found = find_deliveries(tmp_path, sleep=lambda _: os.utime(growing / "0001.png", (2e9, 2e9)))
    assert found == []


def test_empty_hidden_and_missing_folders_are_no_deliveries(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    deliver(tmp_path, ".partial")
    (tmp_path / "file.txt").write_text("x")
    assert find_deliveries(tmp_path, sleep=lambda _: None) == []
    assert find_deliveries(tmp_path / "nowhere", sleep=lambda _: None) == []


def test_nothing_waits_for_an_empty_inbox(tmp_path: Path) -> None:
    def sleep(seconds: float) -> None:
        pytest.fail("slept")

    assert find_deliveries(tmp_path, sleep=sleep) == []


def test_names_that_cannot_be_batches_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "monday").mkdir()
    assert batch_trouble("tuesday", tmp_path) == ""
    assert "exists already" in batch_trouble("monday", tmp_path)
    assert "cannot name a batch" in batch_trouble("my video", tmp_path)


def test_quarantine_keeps_the_video_and_the_reason_and_never_overwrites(tmp_path: Path) -> None:
    for content in ("first", "second"):
        quarantine(deliver(tmp_path / "inbox", "monday", content), "zero baseline", tmp_path / "quarantine")
    assert (tmp_path / "quarantine/monday/0001.png").read_text() == "first"
    assert (tmp_path / "quarantine/monday-2/0001.png").read_text() == "second"
    assert (tmp_path / "quarantine/monday-2/reason.txt").read_text() == "zero baseline\n"
    assert not (tmp_path / "inbox/monday").exists()


def test_a_delivery_may_say_its_own_layout(tmp_path: Path) -> None:
    default = Layout("folder", ("frame_rate_hz=10",))
    folder = deliver(tmp_path, "monday")
    assert layout_of(folder, default) == default
    (folder / "source.yaml").write_text("adapter: kitti_raw\nroot: .\noptions: {camera: grey, step: 2}\n")
    assert layout_of(folder, default) == Layout("kitti_raw", ('camera="grey"', "step=2"))


def test_forgetting_a_batch_leaves_other_content_alone(tmp_path: Path) -> None:
    for name in ("pointer", "video"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "source.yaml").write_text("adapter: folder")
    (tmp_path / "video" / "0001.png").write_text("x")
    forget_batch("pointer", tmp_path)
    forget_batch("video", tmp_path)
    assert not (tmp_path / "pointer").exists()
    assert (tmp_path / "video" / "0001.png").exists()


def test_pending_batches_are_remembered_until_done(tmp_path: Path) -> None:
    note = tmp_path / "deliveries" / "pending.json"
    assert read_pending(note) == []
    write_pending(["monday"], note)
    assert read_pending(note) == ["monday"]
    write_pending([], note)
    assert not note.exists()


def test_a_moved_delivery_keeps_its_name(tmp_path: Path) -> None:
    assert move_delivery(deliver(tmp_path, "monday"), tmp_path / "kept") == tmp_path / "kept" / "monday"
