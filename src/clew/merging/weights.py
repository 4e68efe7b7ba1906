"""Named tensors that are read one at a time, and the file that merged ones are written to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from clew.errors import UserError
from clew.merging.heads import weight_files


class Layout(NamedTuple):
    """What is known of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class Weights(Protocol):
    """The tensors of a model."""

    @property
    def layout(self) -> Mapping[str, Layout]:
        """What there is, by name; tied weights once."""
        ...

    def read(self, name: str) -> Tensor:
        """Return a tensor on the CPU."""
        ...


class InMemory:
    """Tensors that are there already.

    Args:
        tensors: By name.
        stored: The dtype in which floating ones are stored, if they were widened when they were loaded.
    """

    def __init__(self, tensors: Mapping[str, Tensor], stored: torch.dtype | None = None) -> None:
        self._tensors = tensors
        self.layout = {
            name: Layout(tuple(one.shape), stored if stored and one.is_floating_point() else one.dtype)
            for name, one in tensors.items()
        }

    def read(self, name: str) -> Tensor:
        """Return a tensor, without its gradient."""
        return self._tensors[name].detach().cpu()


class Files:
    """The safetensors files of a folder, of which each tensor is mapped from the disk when it is read.

    Args:
        folder: With one file, or several and their index.
        tied: Names that stand for other tensors, and are passed over.

    Raises:
        UserError: If there is no such file, or it cannot be read.
    """

    def __init__(self, folder: Path, tied: Iterable[str] = ()) -> None:
        passed = set(tied)
        files = [open_safetensors(path) for path in weight_files(folder)]
        self._file: dict[str, Any] = {name: file for file in files for name in file.keys() if name not in passed}  # noqa: SIM118
        self.layout = {name: layout_of(file.get_slice(name)) for name, file in self._file.items()}

    def read(self, name: str) -> Tensor:
        """Return a tensor; its pages come from the disk as they are used, and can go again."""
        tensor: Tensor = self._file[name].get_tensor(name)
        return tensor


class TensorFile:
    """A safetensors file that is written tensor by tensor.

    The format is a length of 8 bytes, a JSON head with the place of each tensor, and the bytes; the library's writer
    takes all of them at once.

    Args:
        path: The file.
        layout: What will be written, in this order.

    Raises:
        ValueError: When it is left, if a tensor is missing.
    """

    def __init__(self, path: Path, layout: Mapping[str, Layout]) -> None:
        self._pending = list(layout.items())[::-1]
        head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, (shape, dtype) in layout.items():
            start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
            head[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)  # so that tensors are aligned
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)

    def write(self, name: str, tensor: Tensor) -> None:
        """Append the next tensor.

        Raises:
            ValueError: If it is another one than was announced.
        """
        expected = self._pending.pop()
        if (name, Layout(tuple(tensor.shape), tensor.dtype)) != expected:
            raise ValueError(f"{expected[0]} was to be written, not {name}")
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        self._file.write(data.numpy().data)

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._file.close()
        if kind is None and self._pending:
            raise ValueError(f"{self._pending[-1][0]} was not written")


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and saved buffers of a model by name; tied ones once, so that they stay tied."""
    saved = model.state_dict(keep_vars=True)
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return {**dict(model.named_parameters()), **buffers}


@torch.no_grad()
def put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors by name into a model's own."""
    for name, own in tensors_of(model).items():
        if name in tensors:
            own.copy_(tensors[name])


_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


def open_safetensors(path: Path) -> Any:
    """Open a safetensors file, of which nothing is read yet but its head.

    Raises:
        UserError: If it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"the weights cannot be read: {error}", where=str(path.parent)) from error


def layout_of(view: Any) -> Layout:
    """Return what is known of a tensor of an open safetensors file.

    Raises:
        UserError: If its numbers are of a type that cannot be merged.
    """
    dtype = _DTYPES.get(view.get_dtype())
    if dtype is None:
        raise UserError(f"tensors of the type {view.get_dtype()} cannot be merged", hint="convert the weights first")
    return Layout(tuple(view.get_shape()), dtype)
