"""Files of parameters come out as arrays; anything that is more than that is refused by name."""

import collections
import os
import pickle
import struct

import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.interchange.torch_format import read
from tests.interchange.torch_files import (
    PARAMETER,
    Calls,
    Storage,
    Tensor,
    lightning,
    named,
    write_legacy,
    write_zip,
)

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
WRITERS = {"zip": write_zip, "legacy": write_legacy}


def draw(*shape, dtype="float32"):
    return np.random.default_rng(0).uniform(-9, 9, shape).astype(dtype)


def refused(path):
    with pytest.raises(UserError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"--checkpoint={path}")
    return text


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_type_comes_out_with_its_values(tmp_path, write):
    wanted = {name: draw(2, 3, dtype=name) for name in DTYPES}
    found = read(write(tmp_path / "a.pt", {k: Tensor.of(v) for k, v in wanted.items()})).tensors
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("order", ["little", "big"])
def test_byte_order_is_the_files_own(tmp_path, order):
    wide, brain = draw(4, dtype="float64"), np.array([0x3FC0, 0xC120], np.uint16)
    tensors = {"wide": Tensor.of(wide), "brain": Tensor.of(brain, "BFloat16Storage")}
    found = read(write_zip(tmp_path / "a.pt", tensors, order)).tensors
    np.testing.assert_array_equal(found["wide"], wide)
    assert found["wide"].dtype.isnative
    # bfloat16 is the upper half of a float32: 3FC0 is 1.5, C120 is -10
    assert found["brain"].dtype == np.float32
    np.testing.assert_array_equal(found["brain"], [1.5, -10])


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_views_are_read_through_their_strides_and_share_storage(tmp_path, write):
    base = draw(6, 8)
    storage = Storage(base.ravel())
    tensors = {
        "whole": Tensor(storage, (6, 8), (8, 1)),
        "transposed": Tensor(storage, (8, 6), (1, 8)),
        "part": Tensor(storage, (3, 3), (8, 2), 10),
        "expanded": Tensor(storage, (5, 2), (0, 1), 3),
        "scalar": Tensor(storage, (), (), 7),
        "empty": Tensor(storage, (0, 3), (3, 1)),
    }
    found = read(write(tmp_path / "a.pt", tensors)).tensors
    np.testing.assert_array_equal(found["whole"], base)
    np.testing.assert_array_equal(found["transposed"], base.T)
    np.testing.assert_array_equal(found["part"], base[1:4, 2:7:2])
    np.testing.assert_array_equal(found["expanded"], np.tile(base[0, 3:5], (5, 1)))
    assert found["scalar"] == base[0, 7]
    assert found["empty"].shape == (0, 3)
    assert np.shares_memory(found["whole"], found["transposed"])


def test_lightning_files_give_their_state_dict_and_say_what_else_they_hold(tmp_path):
    wanted = {"model.a": draw(2, 3), "model.b": draw(3)}
    content = lightning({name: Tensor.of(value) for name, value in wanted.items()})
    archive = read(write_zip(tmp_path / "last.ckpt", content))
    assert archive.source == "state_dict"
    assert {"optimizer_states", "hyper_parameters", "epoch"} <= set(archive.others)
    for name, value in wanted.items():
        np.testing.assert_array_equal(archive.tensors[name], value)


@pytest.mark.parametrize("key", ["model_state_dict", "model"])
def test_parameters_are_found_where_trainers_put_them(tmp_path, key):
    archive = read(write_zip(tmp_path / "a.pth", {"loss": 0.5, key: {"a": Tensor.of(draw(2))}}))
    assert (archive.source, archive.others, list(archive.tensors)) == (key, ("loss",), ["a"])


def test_parameters_of_modules_are_tensors(tmp_path):
    class Parameter:
        def __reduce_ex__(self, protocol):
            return PARAMETER, (Tensor.of(np.float32([1, 2])), True, collections.OrderedDict())

    found = read(write_zip(tmp_path / "a.pt", {"a": Parameter(), "extra": None})).tensors
    assert list(found) == ["a"]
    np.testing.assert_array_equal(found["a"], [1, 2])


HOSTILE = {
    "os.system": ("os", "system", "touch {}"),
    "builtins.eval": ("builtins", "eval", "open({!r}, 'w')"),
    "builtins.getattr": ("builtins", "getattr", 1, "x"),
    "torch.load": ("torch", "load", "x"),
    "torch.storage._load_from_bytes": ("torch.storage", "_load_from_bytes", b"x"),
    "nt.system": ("nt", "system", "x"),
    "codecs.encode": ("codecs", "encode", "x"),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_asks_for_more_is_refused_by_name_and_does_nothing(tmp_path, name, write):
    module, function, *args = HOSTILE[name]
    mark = tmp_path / "mark"
    args = [a.format(str(mark)) if isinstance(a, str) else a for a in args]
    content = {"state_dict": {"a": Tensor.of(draw(2))}, "x": Calls(module, function, *args)}
    assert f" asks for {name}, " in refused(write(tmp_path / "a.pt", content))
    assert not mark.exists()


def test_names_inside_harmless_packages_are_never_imported(tmp_path):
    mark = tmp_path / "mark"
    content = {
        "state_dict": {"a": Tensor.of(draw(2))},
        "x": Calls("omegaconf.os", "system", f"touch {mark}"),
        "y": Calls("builtins", "bytes", 10**15),
    }
    assert list(read(write_zip(tmp_path / "a.pt", content)).tensors) == ["a"]
    assert not mark.exists()


def test_a_plain_pickle_is_refused_by_the_name_it_asks_for(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'mark'}",)

    (tmp_path / "a.pt").write_bytes(pickle.dumps(Hostile()))
    assert "asks for posix.system" in refused(tmp_path / "a.pt")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_whole_module_is_refused_with_what_to_save_instead(tmp_path, write):
    path = write(tmp_path / "a.pt", {"model": named("my.nets", "Net")})
    assert "asks for my.nets.Net, which" in refused(path)
    assert "save model.state_dict()" in refused(path)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_cut_off_anywhere_is_one_line(tmp_path, write):
    whole = write(tmp_path / "a.pt", {"a": Tensor.of(draw(40)), "b": Tensor.of(draw(3))})
    data = whole.read_bytes()
    path = tmp_path / "cut.pt"
    for size in [*range(0, len(data), 7), len(data) - 1]:
        path.write_bytes(data[:size])
        assert "damaged, cut off or not a PyTorch file (" in refused(path)


def test_a_changed_byte_in_an_archive_is_noticed(tmp_path):
    path = write_zip(tmp_path / "a.pt", {"a": Tensor.of(draw(40))})
    data = bytearray(path.read_bytes())
    at = data.index(draw(40).tobytes()) + 17
    data[at] ^= 1
    path.write_bytes(data)
    assert "Bad CRC-32" in refused(path)


BEYOND = {
    "beyond its storage": Tensor(Storage(draw(4)), (5,), (1,)),
    "offset": Tensor(Storage(draw(4)), (2,), (1,), 3),
    "backwards": Tensor(Storage(draw(4)), (2,), (-1,), 1),
    "strides": Tensor(Storage(draw(4)), (2, 2), (1,)),
}


@pytest.mark.parametrize("tensor", BEYOND.values(), ids=BEYOND)
def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path, tensor):
    assert "damaged" in refused(write_zip(tmp_path / "a.pt", {"a": tensor}))


def test_storages_of_another_size_than_said_are_refused(tmp_path):
    path = write_legacy(tmp_path / "a.pt", {"a": Tensor.of(draw(4))})
    data = path.read_bytes()
    path.write_bytes(data[:-24] + struct.pack("<q", 5) + data[-16:])
    assert "another size" in refused(path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({}, "has the keys (none) and no tensors"),
        ({"epoch": 1, "lr": 2}, "has the keys epoch, lr and no tensors"),
        ([1, 2], "holds no dict"),
    ],
)
def test_a_file_without_parameters_says_what_it_has(tmp_path, content, text):
    assert text in refused(write_zip(tmp_path / "a.pt", content))


def test_missing_files_folders_and_other_formats_are_one_line(tmp_path):
    assert "No such file" in refused(tmp_path / "nothing.pt")
    assert "directory" in refused(tmp_path)
    (tmp_path / "a.txt").write_text("hello world")
    assert "not a PyTorch file" in refused(tmp_path / "a.txt")


def test_files_of_pytorch_itself_come_out_as_it_reads_them(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.randn(6, 8)
    wanted = {
        "a": base, "t": base.t(), "part": base[1:4, 2:7:2], "b": torch.randn(5).bfloat16(),
        "h": torch.randn(5).half(), "l": torch.arange(4), "s": torch.tensor(3.5),
        "p": torch.nn.Parameter(torch.randn(2)), "e": torch.zeros(0, 3),
    }  # fmt: skip
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pt"
        torch.save(wanted, path, _use_new_zipfile_serialization=zipped)
        found = read(path).tensors
        assert set(found) == set(wanted)
        for name, tensor in wanted.items():
            tensor = tensor.detach().float() if name == "b" else tensor.detach()
            np.testing.assert_array_equal(found[name], tensor.numpy(), strict=True)
