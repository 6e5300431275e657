"""Files of weights with and without other objects in them, and files that would run code."""

from __future__ import annotations

import collections
import hashlib
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gestalt.data.weight_files import (
    bare_name,
    check_finite,
    enter_part,
    hash_file,
    read_content,
    read_content_without_classes,
    select_tensors,
    strip_wrappers,
)
from gestalt.data.weight_pickles import Placeholder
from gestalt.errors import DataError

WEIGHTS = {
    "float": torch.arange(6.0).reshape(2, 3),
    "double": torch.arange(3.0, dtype=torch.float64),
    "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
    "bfloat": torch.tensor([1.5, 3.0], dtype=torch.bfloat16),
    "long": torch.tensor(7),
    "int": torch.arange(5, dtype=torch.int32),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "empty": torch.zeros(0, 4),
}


class Options(dict[str, Any]):
    """As yacs keeps a configuration: a mapping whose entries are attributes too."""

    def __init__(self, values: dict[str, Any], frozen: bool = False) -> None:
        super().__init__(values)
        self.frozen = frozen


class Callback:
    """As a training framework keeps it: an object with state of any kind."""

    def __init__(self) -> None:
        self.best, self.seen, self.kinds = Path("best.ckpt"), {1, 2}, frozenset({"a"})
        self.rows = collections.deque([1, 2])


class Malicious:
    """A pickle that would make a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        """What a careless reader would call."""
        return Path.touch, (self.path,)


def checkpoint(**more: Any) -> dict[str, Any]:
    """As Lightning writes one."""
    return {
        "epoch": 3,
        "state_dict": collections.OrderedDict(WEIGHTS),
        "hyper_parameters": Options({"config": Options({"SIZE": (2, 3)}), "dtype": torch.float32}),
        "callbacks": {Callback: [Callback()]},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}}],
        **more,
    }


def assert_weights(found: Any) -> None:
    assert list(found) == list(WEIGHTS)
    for name, tensor in WEIGHTS.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def pickled_call(name: str, *arguments: object) -> bytes:
    """A pickle that calls what it names ``name``, such as ``numpy ndarray``."""
    return (
        pickle.GLOBAL
        + name.replace(" ", "\n").encode()
        + b"\n"
        + pickle.dumps(arguments, 2)[2:-1]
        + pickle.REDUCE
    )


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_arrays_come_back_in_every_order_and_type(tmp_path: Path, protocol: int) -> None:
    arrays = {
        "float": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "foreign": np.arange(3, dtype=">i4"),
        "text": np.array(["a", "bc"]),
        "flags": np.array([True, False]),
        "single": np.float32(1.5),
        "none": np.zeros((0, 4), np.float16),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, protocol))
    for content in (read_content(tmp_path / "a.pkl"), read_content_without_classes(tmp_path / "a.pkl")[0]):
        for name, array in arrays.items():
            np.testing.assert_array_equal(content[name], array)
            assert content[name].dtype.newbyteorder("=") == array.dtype.newbyteorder("=")


def test_bytes_of_a_file_never_become_objects(tmp_path: Path) -> None:
    # As objects these bytes would be an address, which Python follows when the array is let go of.
    address = b"\x41" * 8
    objects = pickled_call("numpy dtype", "O")
    path = tmp_path / "a.pkl"
    called = pickle.GLOBAL + b"numpy\nndarray\n" + pickle.MARK + pickle.dumps((1,), 2)[2:-1] + objects
    path.write_bytes(called + pickle.dumps(address, 3)[2:-1] + pickle.TUPLE + pickle.REDUCE + pickle.STOP)
    for read in (read_content, read_content_without_classes):
        with pytest.raises(DataError, match="code is never run"):
            read(path)
    # The same through what an array says of itself, with a type that denies to hold objects.
    denying = objects + pickle.dumps((3, "|", None, None, None, -1, -1, 0), 2)[2:-1] + pickle.BUILD
    array = pickled_call("numpy.core.multiarray _reconstruct", 0, (0,), b"b")
    state = pickle.MARK + pickle.dumps(1, 2)[2:-1] + pickle.dumps((1,), 2)[2:-1] + denying
    state += pickle.NEWFALSE + pickle.dumps(address, 3)[2:-1] + pickle.TUPLE + pickle.BUILD
    path.write_bytes(array + state + pickle.STOP)
    for content in (read_content(path), read_content_without_classes(path)[0]):
        assert content.size == 0
        assert not content.dtype.hasobject


def test_weights_beside_objects_of_other_code_are_read_and_nothing_of_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = types.ModuleType("some_trainer")
    with monkeypatch.context() as installed:
        installed.setitem(sys.modules, "some_trainer", trainer)
        for kind in (Options, Callback):
            installed.setattr(kind, "__module__", "some_trainer")
            setattr(trainer, kind.__name__, kind)
        torch.save(checkpoint(), tmp_path / "a.ckpt")
    content, left_out = read_content_without_classes(tmp_path / "a.ckpt")
    assert_weights(content["state_dict"])
    assert content["epoch"] == 3
    assert content["optimizer_states"][0]["state"][0]["step"] == 3
    assert isinstance(content["hyper_parameters"], Placeholder)
    assert {"some_trainer.Options", "some_trainer.Callback", "collections.deque"} <= set(left_out)
    # Where it is not said that they may be left out, such a file is refused.
    with pytest.raises(DataError, match="code is never run"):
        read_content(tmp_path / "a.ckpt")


@pytest.mark.parametrize("form", ["pickle", "zip", "old"])
def test_code_in_a_file_is_never_run(tmp_path: Path, form: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "weights"
    trap = checkpoint(extra=Malicious(mark)) if form == "zip" else {"extra": Malicious(mark)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({**trap, "w": np.ones(2)}))
    else:
        torch.save(trap, path, _use_new_zipfile_serialization=form == "zip")
    if form == "old":
        with pytest.raises(DataError, match="code is never run"):
            read_content_without_classes(path)
    else:
        content, left_out = read_content_without_classes(path)
        assert isinstance(content["extra"], Placeholder)
        assert any("Path" in name or "touch" in name or "getattr" in name for name in left_out)
    assert not mark.exists()
    # The file is a real trap: a careless reader springs it.
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())
    assert mark.exists()


@pytest.mark.parametrize(
    "attack",
    [
        b"cos\nsystem\n(S'touch {mark}'\ntR.",
        b'cbuiltins\neval\n(S\'open("{mark}", "w")\'\ntR.',
        # The name of a method of something harmless.
        b"\x80\x04\x8c\x12torch.nn.parameter\x8c\x12Parameter.__init__\x93.",
        # More room than there is: a string of 2**62 bytes.
        b"\x80\x04\x8e\x00\x00\x00\x00\x00\x00\x00\x40.",
        # State for a class instead of an object.
        b"cos\nsystem\n}S'x'\nI1\nsb.",
        b"(S'touch {mark}'\nios\nsystem\n.",
    ],
)
def test_pickles_written_by_hand_do_nothing(tmp_path: Path, attack: bytes) -> None:
    mark, path = tmp_path / "mark", tmp_path / "weights.pkl"
    path.write_bytes(attack.replace(b"{mark}", str(mark).encode()))
    try:
        content, _ = read_content_without_classes(path)
    except DataError:
        content = None
    assert content is None or content is Placeholder or isinstance(content, Placeholder)
    assert not mark.exists()


def test_tensors_that_share_and_stride_come_back(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    torch.save(
        {"whole": whole, "part": whole[1:, ::2], "turned": whole.T, "options": Options({})}, tmp_path / "a"
    )
    content, _ = read_content_without_classes(tmp_path / "a")
    assert torch.equal(content["whole"], whole)
    assert torch.equal(content["part"], whole[1:, ::2])
    assert torch.equal(content["turned"], whole.T)
    # What is read belongs to the reader: the file stays as it is.
    content["whole"].zero_()
    assert torch.equal(read_content_without_classes(tmp_path / "a")[0]["whole"], whole)


def test_an_archive_that_was_packed_anew_and_compressed_is_read(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a") as source:
        for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
            with zipfile.ZipFile(tmp_path / "b", "w", kind) as target:
                for name in source.namelist():
                    target.writestr(f"x{name}", source.read(name))
            assert_weights(read_content_without_classes(tmp_path / "b")[0]["state_dict"])


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors", "pickle"])
def test_truncated_files_are_refused(tmp_path: Path, form: str, share: float) -> None:
    path, tensors = tmp_path / "weights", {"norm.weight": torch.rand(3000)}
    if form == "safetensors":
        save_file(tensors, path)
    elif form == "pickle":
        path.write_bytes(pickle.dumps({name: value.numpy() for name, value in tensors.items()}))
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for read in (read_content, read_content_without_classes):
        with pytest.raises(DataError, match="cannot be read as weights"):
            read(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"x/data.pkl": b"N.", "x/byteorder": b"big"}, "big-endian"),
        ({"x/other": b""}, "without data.pkl"),
        ({"x/data.pkl": pickle.dumps("cut")[:-3]}, "cannot be read"),
    ],
)
def test_archives_of_another_kind_are_refused(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w") as target:
        for name, content in members.items():
            target.writestr(name, content)
    with pytest.raises(DataError, match=message):
        read_content_without_classes(tmp_path / "a")


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(5, 7)}, tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a") as source, zipfile.ZipFile(tmp_path / "b", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content[:-8] if "/data/" in name else content)
    with pytest.raises(DataError, match="cannot be read as weights"):
        read_content_without_classes(tmp_path / "b")


def test_parts_wrappers_and_tensors() -> None:
    path = Path("file.pth")
    content = {"epoch": 1, "state_dict": {"model": {"module.w": np.ones(2, ">f4"), "note": "x"}}}
    entry, part = enter_part(content, ("model", "state_dict"), path)
    assert part == "state_dict.model"
    tensors = select_tensors(entry, path)
    assert list(tensors) == ["module.w"]
    assert tensors["module.w"].dtype == torch.float32
    assert list(strip_wrappers(tensors, ("module.", "model."), path)) == ["w"]
    assert bare_name("model.module.model.x", ("module.", "model.")) == "x"
    with pytest.raises(DataError, match="Got: list"):
        enter_part([1], ("model",), path)
    with pytest.raises(DataError, match="Got: note"):
        select_tensors({"note": "x"}, path)
    with pytest.raises(DataError, match=r"w twice, once as module\.w"):
        strip_wrappers({"w": torch.ones(1), "module.w": torch.ones(1)}, ("module.",), path)
    with pytest.raises(DataError, match="w must be finite"):
        check_finite({"w": torch.tensor([1.0, float("inf")])}, path)


def test_hash_is_that_of_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
