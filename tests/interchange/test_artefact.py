"""An artefact is its functions, its weights once, and a description; or it is not there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from tds_jax.interchange import artefact
from tds_jax.interchange.artefact import Form

ABOUT = {"rate_hz": 50.0, "names": ["a", "b"]}
(BATCH,) = export.symbolic_shape("b")
X = jax.ShapeDtypeStruct((BATCH, 64), jnp.float32)


def weights():
    rng = np.random.default_rng(0)
    return {"up/kernel": jnp.asarray(rng.normal(size=(64, 64)), jnp.float32), "shift": jnp.ones(64)}


def up(weights, x):
    return jnp.tanh(x @ weights["up/kernel"] + jnp.broadcast_to(weights["shift"], x.shape))


def twice(weights, x):
    return up(weights, up(weights, x))


FORMS = {"up": Form(up, (X,)), "twice": Form(twice, (X,))}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("artefact") / "model.npz"
    seen = artefact.write(path, FORMS, weights(), ABOUT, lambda found: sorted(found.functions))
    return path, seen


def test_writing_returns_what_the_check_says_of_the_file_read_back(written):
    assert written[1] == ["twice", "up"]


@pytest.mark.parametrize("batch", [1, 3])
def test_functions_read_back_are_those_written_for_any_batch(written, batch):
    """tanh of sums of 64 products, once and twice: a few f32 eps of numbers below 1."""
    found = artefact.read(written[0])
    x = np.random.default_rng(1).normal(size=(batch, 64)).astype(np.float32)
    for name, form in FORMS.items():
        expected = jax.jit(form.function)(weights(), x)
        np.testing.assert_allclose(found.functions[name](x), expected, rtol=0, atol=2e-6)


def test_the_description_comes_back(written):
    assert artefact.read(written[0]).about == ABOUT


def test_weights_are_stored_once_under_their_names_and_are_no_part_of_functions(written):
    with np.load(written[0]) as file:
        sizes = {name: file[name].nbytes for name in file}
        np.testing.assert_array_equal(file["weights/up/kernel"], weights()["up/kernel"])
    weighed = {"weights/up/kernel", "weights/shift"}
    assert sizes.keys() == {"about", "function/up", "function/twice"} | weighed
    assert max(sizes["function/up"], sizes["function/twice"]) < sizes["weights/up/kernel"]


def test_a_file_that_fails_its_check_leaves_nothing_and_spoils_nothing(tmp_path):
    def refuse(found):
        raise ValueError("differs")

    path = tmp_path / "model.npz"
    with pytest.raises(ValueError, match="differs"):
        artefact.write(path, FORMS, weights(), ABOUT, refuse)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"older")
    with pytest.raises(ValueError, match="differs"):
        artefact.write(path, FORMS, weights(), ABOUT, refuse)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("model.npz", b"older")]


def test_nested_names_are_joined_and_split_again():
    state = {"encoder": {"block": {"kernel": 1}}, "start": 2}
    assert artefact.flatten(state) == {"encoder/block/kernel": 1, "start": 2}
    assert artefact.nested(artefact.flatten(state)) == state
