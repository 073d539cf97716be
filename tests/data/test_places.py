"""Laws of the places that predictions are written to."""

import pytest

from tds_jax.data.places import make_folder_for, pair_files
from tds_jax.errors import UserError

ENDINGS = (".npz", ".npy")


@pytest.fixture
def files(tmp_path):
    for name in ("b.npy", "a.NPZ", "notes.txt", "._b.npy"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "taken").mkdir()
    return tmp_path


def test_a_folders_files_keep_their_names_and_order_and_may_get_another_ending(files):
    out = files / "out"
    same = [(files / "a.NPZ", out / "a.NPZ"), (files / "b.npy", out / "b.npy")]
    assert pair_files(files, out, ENDINGS) == same
    assert [place.name for _, place in pair_files(files, out, ENDINGS, ".npz")] == [
        "a.npz",
        "b.npz",
    ]
    assert pair_files(files / "b.npy", files / "c", ENDINGS) == [(files / "b.npy", files / "c")]
    assert not out.exists()
    with pytest.raises(UserError, match=r"out\.csv ends in \.csv, but what is written is a folder"):
        pair_files(files, files / "out.csv", ENDINGS)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("no.npz", "c.npz", "no such file or folder"),
        ("b.npy", "c.npy", r"must end with \.npz"),
        ("b.npy", "b.npy", "is the input itself"),
        ("b.npy", "taken", "is a folder; name a file"),
        (".", ".", "must be another folder"),
        (".", "notes.txt", "must be another folder"),
        ("taken", "out", r"holds no \.npz or \.npy file"),
    ],
)
def test_places_that_cannot_be_are_one_line(files, source, target, words):
    with pytest.raises(UserError, match=words):
        pair_files(files / source, files / target, ENDINGS, ".npz")


def test_two_inputs_of_one_place_are_refused(files):
    (files / "b.npz").touch()
    with pytest.raises(UserError, match=r"b.npz and b.npy would both go to .*out/b.npz; rename"):
        pair_files(files, files / "out", ENDINGS, ".npz")


def test_folders_are_made_for_files_and_not_below_files(files):
    make_folder_for(files / "x" / "y" / "z.npz")
    assert (files / "x" / "y").is_dir()
    with pytest.raises(UserError, match="its folder cannot be made"):
        make_folder_for(files / "b.npy" / "z.npz")
