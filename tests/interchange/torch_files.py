"""PyTorch's file formats written by hand: no PyTorch, no OmegaConf, the bytes they would write."""

import collections
import io
import pickle
import types
import zipfile

import numpy as np

KINDS = {
    "float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage",
}  # fmt: skip


def named(module, name, base=type):
    """A class (or function) that pickles as module.name without having to exist there."""
    if base is type:
        return type(name, (), {"__module__": module})

    def function(*args):
        raise AssertionError("only its name is pickled")

    function.__module__, function.__qualname__ = module, name
    return function


REBUILD = named("torch._utils", "_rebuild_tensor_v2", types.FunctionType)
PARAMETER = named("torch._utils", "_rebuild_parameter", types.FunctionType)


class Storage:
    """values: 1-D array; kind: the class PyTorch would name, bfloat16 being given as uint16."""

    def __init__(self, values, kind=None):
        self.values = np.asarray(values)
        self.kind = named("torch", kind or KINDS[str(self.values.dtype)])


class Tensor:
    def __init__(self, storage, shape, strides, offset=0):
        self.parts = storage, offset, tuple(shape), tuple(strides)

    def __reduce_ex__(self, protocol):
        return REBUILD, (*self.parts, False, collections.OrderedDict())

    @classmethod
    def of(cls, array, kind=None):
        array = np.asarray(array)
        strides = np.cumprod([1, *array.shape[:0:-1]])[::-1][: array.ndim]
        return cls(Storage(array.ravel(), kind), array.shape, [int(s) for s in strides])


class Calls:
    """Pickles as the result of calling module.name(*args)."""

    def __init__(self, module, name, *args):
        self.function, self.args = named(module, name, types.FunctionType), args

    def __reduce_ex__(self, protocol):
        return self.function, self.args


class Pickler(pickle._Pickler):
    """Writes names without looking them up, and storages by number."""

    def __init__(self, file):
        super().__init__(file, 2)
        self.storages = []

    def save_global(self, obj, name=None):
        self.write(pickle.GLOBAL + f"{obj.__module__}\n{obj.__qualname__}\n".encode())
        self.memoize(obj)

    dispatch = dict(pickle._Pickler.dispatch) | {types.FunctionType: save_global}

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        if obj not in self.storages:
            self.storages.append(obj)
        return ("storage", obj.kind, str(self.storages.index(obj)), "cpu", len(obj.values))


def pickled(content):
    """(bytes, storages in the order of their numbers)."""
    buffer = io.BytesIO()
    pickler = Pickler(buffer)
    pickler.dump(content)
    return buffer.getvalue(), pickler.storages


def write_zip(path, content, byteorder="little"):
    """The format since torch 1.6."""
    data, storages = pickled(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", byteorder)
        for n, storage in enumerate(storages):
            order = {"little": "<", "big": ">"}[byteorder]
            values = storage.values.astype(storage.values.dtype.newbyteorder(order))
            archive.writestr(f"archive/data/{n}", values.tobytes())
        archive.writestr("archive/version", "3\n")
    return path


def write_legacy(path, content):
    """The format before torch 1.6."""
    data, storages = pickled(content)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    with path.open("wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, system):
            pickle.dump(value, file, 2)
        file.write(data)
        pickle.dump([str(n) for n in range(len(storages))], file, 2)
        for storage in storages:
            file.write(len(storage.values).to_bytes(8, "little") + storage.values.tobytes())
    return path


def lightning(tensors):
    """What Lightning 2 saves of a module whose settings are OmegaConf objects."""
    anything = named("typing", "Any")

    def node(module, name, state):
        made = named(module, name)()
        made.__dict__.update(state)
        return made

    metadata = node(
        "omegaconf.base", "ContainerMetadata",
        {"ref_type": anything, "object_type": dict, "optional": True, "key": None,
         "flags": {}, "resolver_cache": collections.defaultdict(dict), "element_type": anything},
    )  # fmt: skip
    leaf = node("omegaconf.nodes", "AnyNode", {"_val": 0.01, "_metadata": metadata})
    items = node("omegaconf.listconfig", "ListConfig", {"_content": [leaf], "_metadata": metadata})
    settings = node(
        "omegaconf.dictconfig", "DictConfig",
        {"_content": {"scale": leaf, "kernels": items}, "_metadata": metadata, "_parent": None},
    )  # fmt: skip
    moments = {"exp_avg": Tensor.of(np.ones(3, np.float32)), "step": Tensor.of(np.float32(7))}
    state = collections.OrderedDict(tensors)
    state._metadata = {"": {"version": 1}}
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": Tensor.of(np.float32(0.1))}},
        "optimizer_states": [{"state": {0: moments}, "param_groups": [{"lr": 1e-3}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "network_conf": settings,
            "optimizer_conf": settings,
            "lr_scheduler_conf": None,
            "provide_initial_pos": True,
            "loss_weights": settings,
        },
    }
