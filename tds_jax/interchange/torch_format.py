"""Tensors from PyTorch's files (.pt, .pth, .ckpt, .bin) without PyTorch, executing nothing.

Such a file is a pickle that names storages, and the storages' raw bytes: in a zip archive (since
torch 1.6) or one after the other (before). A pickle is a program; here it may call nothing but
constructors of inert stand-ins, and a file that asks for more is refused with the name it asked
for. Storages are read only when a tensor of the chosen state dict needs them, so the optimizer's
moments cost nothing.
"""

import collections
import dataclasses
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from tds_jax.errors import UserError

BFLOAT16 = "bfloat16"
# Storage classes and what they hold; bfloat16 has no numpy type and becomes float32.
STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
# Where trainers put the parameters, in the order in which they are looked for.
STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
# And what they average of them while they train.
AVERAGE_KEYS = (
    *("ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema_params"),
    *("ema_model_state_dict", "averaged_model_state_dict"),
)
# Modules whose classes only hold values; their objects become empty stand-ins, nothing is imported.
HOLDERS = ("omegaconf", "lightning", "pytorch_lightning", "lightning_fabric", "argparse", "pathlib")
HOLDER_NAMES = {
    "builtins": "bool bytes complex dict float frozenset int list object set slice str tuple",
    "__builtin__": "bool complex dict float frozenset int list object set slice str tuple unicode",
    "typing": "Any",
    "collections": "defaultdict Counter",
    "datetime": "timedelta",
    "torch": "Size device",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "scalar _reconstruct",
    "numpy._core.multiarray": "scalar _reconstruct",
    "_codecs": "encode",  # how protocol 2 writes the bytes of a numpy scalar
}
TORCH_DTYPES = ("float", "double", "half", "bfloat", "int", "uint", "bool", "complex", "long")
Order = Literal["<", ">"]
Keys = tuple[tuple[str, ...], tuple[str, ...]]
BYTE_ORDERS: dict[bytes, Order] = {b"little": "<", b"big": ">"}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# A data.pkl holds names and shapes; the largest real ones are a few MB.
MAX_PICKLE_BYTES = 2**28


@dataclasses.dataclass(frozen=True)
class Archive:
    """tensors: name -> array, native byte order, no two sharing memory with the file.

    source: key of the state dict in the file, '' when it is the whole file. others: keys beside it.
    averages: those of them, and names in the state dict, that are an average of the parameters.
    """

    tensors: dict[str, np.ndarray]
    source: str
    others: tuple[str, ...]
    averages: tuple[str, ...]


class _Holder(dict[Any, Any]):
    """Stands for an object whose class is not wanted: takes arguments and state, does nothing."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def append(self, _value: Any) -> None:
        """For what pickle fills like a list."""

    def extend(self, _values: Any) -> None:
        """The same, many at once."""

    def add(self, _value: Any) -> None:
        """For what pickle fills like a set."""


@dataclasses.dataclass(frozen=True)
class _Storage:
    kind: str
    key: str
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_rest: Any) -> _Tensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("a tensor's offset, shape or strides are not whole numbers")
    if len(shape) != len(strides):
        raise ValueError(f"a tensor has shape {shape} but strides {strides}")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data: Any, *_rest: Any) -> Any:
    return data


REBUILDERS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_parameter": _rebuild_parameter,
}


class _Unpickler(pickle.Unpickler):
    """Knows the few globals above; everything else is refused by name."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, encoding="utf-8")
        self._path = path
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for a global; nothing is ever imported."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name in REBUILDERS:
            return REBUILDERS[name]
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and name.startswith(TORCH_DTYPES):
            return _Holder()
        if name in HOLDER_NAMES.get(module, "").split() or module.split(".")[0] in HOLDERS:
            return type("Holder", (_Holder,), {})
        raise UserError(
            f"--checkpoint={self._path} asks for {module}.{name}, which a file of parameters does "
            "not need; save model.state_dict() alone, and do not load this file elsewhere unless "
            "you trust it"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """('storage', type, key, location, count[, view]) -> handle; reads nothing."""
        tag, kind, key, _, count, *view = pid
        known = isinstance(kind, str) and kind in STORAGES.values()
        if tag != "storage" or not known or type(count) is not int or any(view):
            raise ValueError("a storage is described in an unknown way")
        return self.storages.setdefault(str(key), _Storage(kind, str(key), count))


def read(path: Path, keys: tuple[str, ...] = STATE_KEYS, beside: tuple[str, ...] = ()) -> Archive:
    """The parameters in a file; f16, f32, f64 and integers as they are, bf16 as f32.

    keys: where they may be, the first that holds tensors counts. beside: where else, if in none of
    them; which of these there are is told in `Archive.averages`.

    Raises UserError, in one line, for a file that is not PyTorch's, is damaged, is cut off, holds
    no tensors, or asks for anything but plain values (the name is given).
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            kind = _read_zip if start.startswith(b"PK") else _read_legacy
            return kind(file, path, (keys, beside))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"--checkpoint={path} cannot be read ({error.strerror})") from error
    # A damaged or hostile pickle may fail in any way; none of them is our own mistake.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"--checkpoint={path} is damaged, cut off or not a PyTorch file ({reason}); "
            "fetch or save it again"
        ) from error


def _read_zip(file: BinaryIO, path: Path, keys: Keys) -> Archive:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(names) != 1:
            raise ValueError(f"{len(names)} entries named data.pkl, 1 expected")
        root = names[0].split("/")[0]
        if archive.getinfo(names[0]).file_size > MAX_PICKLE_BYTES:
            raise ValueError(f"data.pkl is larger than {MAX_PICKLE_BYTES} bytes")
        order: Order = "<"
        if f"{root}/byteorder" in archive.namelist():
            order = BYTE_ORDERS[archive.read(f"{root}/byteorder").strip()]
        with archive.open(names[0]) as pickled:
            content = _Unpickler(pickled, path).load()  # type: ignore[arg-type]

        def raw(storage: _Storage) -> bytes:
            entry = archive.getinfo(f"{root}/data/{storage.key}")
            _require_size(storage, entry.file_size)
            return archive.read(entry)

        return _archive(content, path, raw, order, keys)


def _read_legacy(file: BinaryIO, path: Path, keys: Keys) -> Archive:
    """Pickles of a magic number, a version, the system, the object and the storages' keys; then
    each storage, its count (i8) and its values, always little-endian."""
    if _Unpickler(file, path).load() != LEGACY_MAGIC:
        raise ValueError("neither a zip archive nor torch's older format")
    for _ in ("version", "system"):
        _Unpickler(file, path).load()
    pickled = _Unpickler(file, path)
    content = pickled.load()
    places: dict[str, int] = {}
    for key in _Unpickler(file, path).load():
        storage = pickled.storages[key]
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise ValueError(f"storage {key} has another size than its tensors say")
        places[key] = file.tell()
        file.seek(storage.count * _itemsize(storage.kind), 1)

    def raw(storage: _Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(storage.count * _itemsize(storage.kind))

    return _archive(content, path, raw, "<", keys)


def _itemsize(kind: str) -> int:
    return 2 if kind == BFLOAT16 else np.dtype(kind).itemsize


def _require_size(storage: _Storage, size: int) -> None:
    if size != storage.count * _itemsize(storage.kind):
        raise ValueError(
            f"storage {storage.key} has {size} bytes, not {storage.count} values of {storage.kind}"
        )


def _archive(
    content: Any, path: Path, raw: Callable[[_Storage], bytes], order: Order, keys: Keys
) -> Archive:
    source, tensors = _state_dict(content, path, *keys)
    arrays: dict[str, np.ndarray] = {}

    def array(storage: _Storage) -> np.ndarray:
        if storage.key not in arrays:
            arrays[storage.key] = _decode(raw(storage), storage, order)
        return arrays[storage.key]

    read_out = {name: _view(array(tensor.storage), tensor) for name, tensor in tensors.items()}
    others = tuple(str(key) for key in content if key != source) if source else ()
    averages = tuple(key for key in keys[1] if key in others and _wrapped(content[key]))
    return Archive(read_out, source, others, averages)


def _state_dict(
    content: Any, path: Path, keys: tuple[str, ...], beside: tuple[str, ...]
) -> tuple[str, dict[str, _Tensor]]:
    """(key, name -> tensor): the file itself, or its first of keys that holds tensors."""
    if not isinstance(content, Mapping):
        raise UserError(f"--checkpoint={path} holds no dict; save model.state_dict()")
    if keys is STATE_KEYS and (tensors := _tensors(content)):
        return "", tensors
    for key in (*keys, *beside):
        if tensors := _wrapped(content.get(key)):
            return key, tensors
    raise UserError(
        f"--checkpoint={path} has the keys {', '.join(map(str, content)) or '(none)'} and no "
        f"tensors in any of {', '.join(STATE_KEYS)}; save model.state_dict()"
    )


def _tensors(values: Any) -> dict[str, _Tensor]:
    items = values.items() if isinstance(values, Mapping) else ()
    return {str(name): value for name, value in items if isinstance(value, _Tensor)}


def _wrapped(values: Any) -> dict[str, _Tensor]:
    """Tensors of a state dict, or of the one inside what a trainer wraps it in."""
    inside = values if isinstance(values, Mapping) else {}
    places = (values, *(inside.get(key) for key in (*STATE_KEYS, "module", "shadow")))
    return next((found for found in map(_tensors, places) if found), {})


def _decode(raw: bytes, storage: _Storage, order: Order) -> np.ndarray:
    if storage.kind == BFLOAT16:  # the upper half of a float32
        wide = np.frombuffer(raw, f"{order}u2").astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32)
    values = np.frombuffer(raw, np.dtype(storage.kind).newbyteorder(order))
    return values.astype(values.dtype.newbyteorder("="))


def _view(values: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """The tensor as a view of its storage; expanded tensors stay as small as they are."""
    last = tensor.offset + sum(
        (n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True)
    )
    if math.prod(tensor.shape) and last >= len(values):
        raise ValueError(f"a tensor of shape {tensor.shape} reaches beyond its storage")
    strides = tuple(step * values.itemsize for step in tensor.strides)
    return np.lib.stride_tricks.as_strided(
        values[tensor.offset :], tensor.shape, strides, writeable=False
    )
