"""Pickles that others wrote, read without importing or calling anything that they name.

What is needed for weights is known by name; anything else is refused, or replaced by a placeholder that does nothing.
"""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

# What NumPy called its innermost package before version 2, and since.
CORES = ("core", "_core")
# What a pickle of names and arrays needs besides arrays; nothing here calls anything else.
HARMLESS = {("collections", "OrderedDict"), ("_codecs", "encode")}
# Kinds of elements whose bytes are their values: numbers and text. Those of objects would be addresses.
PLAIN_KINDS = "biufcSU"
# Names of torch's storages and the type of their elements.
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
STORAGE_MODULES = ("torch", "torch.storage", "torch.cuda")
# A member of a zip archive begins with a header of this size, its name and an extra field; their lengths stand here.
ZIP_HEADER_BYTES, ZIP_LENGTHS = 30, slice(26, 30)

# Key, element type and number of elements of a storage to its (N,) values.
StorageReader = Callable[[str, torch.dtype, int], Tensor]


class ElementType:
    """The elements of a pickled array; size and byte order are taken from the pickle, nothing else.

    NumPy believes what a pickle says about a type: that bytes are objects, or numbers addresses.
    """

    def __init__(self, code: Any, *_options: Any) -> None:
        """Size and kind by NumPy's code, such as f4."""
        self.dtype = np.dtype(str(code))

    @property
    def is_plain(self) -> bool:
        """Whether these are numbers or text."""
        return self.dtype.kind in PLAIN_KINDS

    def __setstate__(self, state: Any) -> None:
        """The byte order."""
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class PlainArray(np.ndarray):
    """An array whose content comes from a pickle; one of anything but numbers and text stays empty."""

    def __setstate__(self, state: Any) -> None:
        """Shape, elements, order and bytes."""
        shape, element, is_fortran, content = state[-4:]
        if element.is_plain:
            super().__setstate__((1, shape, element.dtype, is_fortran, content))


def _empty_array(*_arguments: Any) -> PlainArray:
    return PlainArray((0,), np.bool_)


def _array_from_bytes(
    content: Any, element: ElementType, shape: Sequence[int], order: str, *_rest: Any
) -> np.ndarray:
    return np.frombuffer(content, element.dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(element: ElementType, content: Any = b"") -> Any:
    if not element.is_plain:
        return None
    # Strings of Python 2 are text here.
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, element.dtype, 1)[0]


def _no_bytes() -> bytes:
    return b""


# The names that pickles of arrays hold, and what is taken in their place. NumPy's array type takes any bytes for
# objects when it is called, so nothing that can be called stands for it.
ARRAY_PARTS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): ElementType,
    ("numpy", "ndarray"): "numpy.ndarray",
    # What protocol 2 calls for the content of an empty array.
    ("__builtin__", "bytes"): _no_bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _empty_array for core in CORES},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in CORES},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _array_from_bytes for core in CORES},
}


class HarmlessUnpickler(pickle.Unpickler):
    """Reads numbers, strings, containers and NumPy arrays; refuses every other class or function by name."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may name."""
        if (module, name) in ARRAY_PARTS:
            return ARRAY_PARTS[module, name]
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which weights do not need")
        return super().find_class(module, name)


class Placeholder:
    """Stands for an object whose class was left out; takes whatever a pickle does to it and keeps nothing."""

    def __new__(cls, *_args: Any, **_options: Any) -> Placeholder:
        """Whatever the arguments."""
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_options: Any) -> None:
        """Whatever the arguments."""

    def __call__(self, *_args: Any, **_options: Any) -> Placeholder:
        """What a placeholder makes is one."""
        return self

    def __setstate__(self, state: Any) -> None:
        """Keep nothing."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep nothing."""

    def append(self, value: Any) -> None:
        """Keep nothing."""

    def extend(self, values: Any) -> None:
        """Keep nothing."""

    def add(self, value: Any) -> None:
        """Keep nothing."""


class InertUnpickler(HarmlessUnpickler):
    """Reads tensors as well; puts a placeholder where a pickle names any other class or function.

    Args:
        file: The pickle.
        encoding: Of the strings of Python 2.
        read_storage: Gives the values behind the tensors of a ``torch.save`` archive; None where there can be none.
    """

    def __init__(
        self, file: IO[bytes], *, encoding: str = "utf-8", read_storage: StorageReader | None = None
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._read_storage = read_storage
        self._left_out: set[str] = set()

    @property
    def left_out(self) -> tuple[str, ...]:
        """Full names of the classes and functions that placeholders stand for, sorted."""
        return tuple(sorted(self._left_out))

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle names, or the placeholder."""
        if module in STORAGE_MODULES and name in STORAGES:
            return STORAGES[name]
        if rebuild := REBUILDERS.get((module, name)):
            return rebuild
        if (module, name) in HARMLESS or (module, name) in ARRAY_PARTS:
            return super().find_class(module, name)
        self._left_out.add(f"{module}.{name}")
        return Placeholder

    def persistent_load(self, pid: Any) -> Tensor:
        """The storage that a tensor of ``torch.save`` refers to."""
        kind, dtype, key, _, count = pid
        if self._read_storage is None or kind != "storage":
            raise pickle.UnpicklingError(f"it refers to {pid!r}, which is not in the file")
        return self._read_storage(key, dtype, count)


def read_archive(path: Path) -> tuple[Any, tuple[str, ...]]:
    """What ``torch.save`` put into a zip archive, with placeholders for objects of other code.

    Returns:
        The content, its tensors on the CPU and in the mapped file, and the names of what was left out, sorted.

    Raises:
        pickle.UnpicklingError, RuntimeError, LookupError, ValueError, TypeError: The archive is damaged or no such one.

    Source:
        The format as ``torch.save`` documents it: a pickle ``data.pkl`` whose tensors refer to the members of
        ``data``, which hold bare values.
    """
    with zipfile.ZipFile(path) as archive:
        inside = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if inside is None:
            raise pickle.UnpicklingError("it is a zip archive without data.pkl")
        root = inside.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist():
            order = archive.read(f"{root}byteorder").decode()
            if order != sys.byteorder:
                raise ValueError(
                    f"its numbers are {order}-endian, those of this machine {sys.byteorder}-endian"
                )
        mapped = np.memmap(path, np.uint8, mode="c")

        def read_storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            values = _member_bytes(archive, mapped, f"{root}data/{key}")
            return torch.from_numpy(values[: count * dtype.itemsize]).view(dtype)

        unpickler = InertUnpickler(io.BytesIO(archive.read(inside)), read_storage=read_storage)
        return unpickler.load(), unpickler.left_out


def _member_bytes(archive: zipfile.ZipFile, mapped: np.ndarray, name: str) -> np.ndarray:
    """The bytes of a member, in the mapped file where they are stored as they are."""
    entry = archive.getinfo(name)
    start = entry.header_offset
    name_length, extra_length = np.frombuffer(mapped[start : start + ZIP_HEADER_BYTES][ZIP_LENGTHS], "<u2")
    start += ZIP_HEADER_BYTES + int(name_length) + int(extra_length)
    # torch.save aligns its members; values of a file that was packed anew may lie anywhere.
    if entry.compress_type != zipfile.ZIP_STORED or start % 8:
        return np.frombuffer(bytearray(archive.read(entry)), np.uint8)
    return np.asarray(mapped[start : start + entry.file_size])


def _rebuild_tensor(
    storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_rest: Any
) -> Tensor:
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _rebuild_parameter(tensor: Tensor, *_rest: Any) -> Tensor:
    return tensor


# The functions of torch that archives of tensors name, and what is called in their place.
REBUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch", "Size"): tuple,
}
