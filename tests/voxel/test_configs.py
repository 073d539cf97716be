"""The voxel presets: sizes as published, and what cannot work is said at once."""

import importlib

import jax
import numpy as np
import pytest
from flax import nnx

from configs import voxel_base
from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.step import split
from tds_jax.errors import UserError
from tds_jax.voxel import config
from tds_jax.voxel.task import VoxelTask
from tests.voxel import golden

PUBLISHED = {"voxel_ultra": 694_788, "voxel_light": 7_652_628, "voxel_standard": 40_847_092}
OTHERS = (
    *("voxel_base", "voxel_lightweight", "voxel_vqvae", "voxel_direct"),
    *("voxel_diffusion", "voxel_folded", "voxel_consistency", "voxel_folded_consistency"),
)


def resolved(name="voxel_base", **changes):
    values = importlib.import_module(f"configs.{name}").get_config()
    for path, value in changes.items():
        group, field = path.split("__")
        values[group][field] = value
    return configuration.resolve(values.to_dict(), tasks.groups("voxel"))


def parameters(task):
    _, params, _ = split(nnx.eval_shape(lambda: task.init(nnx.Rngs(0))))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_numbers_of_parameters(name):
    assert parameters(VoxelTask(resolved(name))) == PUBLISHED[name]


# Others of them in another size, or of another frozen network: the same lines are traced.
ALIKE = ("voxel_light", "voxel_lightweight", "voxel_standard", "voxel_consistency")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] * (name in ALIKE))
        for name in (*PUBLISHED, *OTHERS)
    ],
)
def test_a_preset_trains_as_far_as_shapes_tell(name):
    config = resolved(name)
    task = VoxelTask(config)
    state = Blueprint(task, config).shapes
    assert state.window["loss"].sum.shape == ()
    assert {leaf.shape[0] for leaf in task.batch_spec(3).values()} == {3}


def test_residual_blocks_may_be_none_one_or_two():
    none, one, two = (parameters(VoxelTask(resolved(model__blocks=n))) for n in range(3))
    assert none < one < two


def test_augmentation_is_off_unless_asked_for():
    data = voxel_base.get_config().data
    chances = ("flip", "noise", "dropout", "intensity", "doppler")
    assert not any(data[f"augment_{name}"] for name in chances)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__blocks": 3}, r"model.blocks=3 is out of range; use 0 to 2"),
        ({"model__codes": 8}, r"model.codes=8 does not go with model.name='vae'"),
        ({"model__name": "vqvae"}, r"model.codes=0 does not go with model.name='vqvae'"),
        ({"model__name": "diffusion"}, r"model.autoencoder='' but .* needs one; train configs/"),
        ({"model__name": "consistency"}, r"model.teacher='' but .* needs one; train configs/"),
        ({"model__multipliers": ()}, r"model.multipliers=\(\) must be whole numbers"),
        (
            {"model__attention": True, "model__base": 7},
            r"model.base=7 .* divisible by 4, the heads",
        ),
        ({"model__width": 5}, r"model.width=5 must be even"),
        (
            {"model__name": "direct", "model__direct_width": 5},
            r"model.direct_width=5 must be even",
        ),
        (
            {"model__name": "diffusion", "model__autoencoder": "x", "model__guidance": 2.0},
            r"model.guidance=2.0 needs estimates without a condition",
        ),
        (
            {"model__name": "diffusion", "model__fold": (2, 2)},
            r"model.fold=\(2, 2\) must be three whole numbers above 0",
        ),
        (
            {"model__name": "diffusion", "model__fold": (2, 2, 2), "model__autoencoder": "x"},
            r"model.fold=\(2, 2, 2\) and model.autoencoder=x both say",
        ),
        ({"model__unet_heads": 5}, r"model.unet_heads=5 must divide the 96 channels"),
        ({"model__sigma_min": 90.0}, r"sigma_min=90.0 and model.sigma_max=80.0 must be"),
        ({"loss__reconstruction": "l2"}, r"loss.reconstruction='l2' is not known; use one of"),
        ({"loss__bce_weight": 0.0, "loss__dice_weight": 0.0}, r"leave the occupancy unlearned"),
        ({"loss__channel_weights": (1.0,)}, r"loss.channel_weights=\(1.0,\) must be four"),
        ({"data__grid": "crop"}, r"data.grid='crop' is not known; use one of native, pad"),
        ({"data__shape": (8, 8)}, r"data.shape=\(8, 8\) must be three whole numbers"),
        ({"data__ranges": (0.0, 0.0, 0.0, 1.0, 0.0, 1.0)}, r"data.ranges=.* each pair rising"),
        ({"data__split_ratio": (0.5, 0.4, 0.2)}, r"data.split_ratio=.* add up to 1"),
        ({"eval__samples": 0}, r"eval.samples=0 is too small"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(changes, words):
    with pytest.raises(UserError, match=words) as error:
        resolved(**changes)
    assert "\n" not in str(error.value)


def abstract(task):
    _, params, rest = split(nnx.eval_shape(lambda: task.init(nnx.Rngs(0))))
    return params, rest


def test_the_originals_autoencoder_comes_in_and_statistics_stay():
    task = VoxelTask(resolved("voxel_ultra", loss__reconstruction="mse"))
    tensors = golden.fill(golden.shapes("ultra"))
    params, rest = task.import_params(*abstract(task), tensors)
    kernel = np.moveaxis(tensors["decoder.conv_out.weight"], (0, 1), (4, 3))
    ours = params["network"]["decoder"]["out"]["conv"]["kernel"]
    np.testing.assert_array_equal(ours, kernel)
    assert rest == abstract(task)[1]


def test_the_originals_u_net_comes_in_and_the_radars_encoder_stays_which_is_said(capsys):
    given = {"model__unet_multipliers": (1, 2, 3), "model__condition_channels": 4}
    task = VoxelTask(resolved("voxel_diffusion", **given, model__condition_base=8))
    before = abstract(task)
    params, rest = task.import_params(*before, golden.fill(golden.shapes("ldm_unet_main")))
    assert "the encoder of the radar has other sizes" in capsys.readouterr().err
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params["unet"]))
    assert (params["encoder"], rest) == (before[0]["encoder"], before[1])


def test_weights_that_attend_with_four_heads_are_imported_into_no_other_number():
    task = VoxelTask(resolved("voxel_diffusion", model__unet_heads=2))
    with pytest.raises(UserError, match=r"model.unet_heads=2, but the original's .* use 4"):
        task.import_params({}, {}, {})


@pytest.mark.parametrize(("name", "heads"), [("voxel_ultra", 4), ("voxel_diffusion", 1)])
def test_a_u_net_from_before_the_setting_keeps_its_one_head(name, heads):
    """Of an autoencoder's run it means nothing, and does not keep that from going on."""
    values = resolved(name).to_dict()
    del values["model"]["unet_heads"], values["data"]["max_bad_files"]
    del values["model"]["fold"], values["model"]["temperature"]
    del values["loss"]["sample_dice_weight"]
    assert config.today(values)["loss"]["sample_dice_weight"] == 0
    assert config.today(values)["model"]["fold"] == ()
    assert config.today(values)["data"]["max_bad_files"] == 0
    assert config.today(values)["model"]["unet_heads"] == heads
    values["model"]["unet_heads"] = 2
    assert config.today(values)["model"]["unet_heads"] == 2


def test_a_student_is_not_imported():
    task = VoxelTask(resolved("voxel_consistency"))
    with pytest.raises(UserError, match="learns changes of a teacher"):
        task.import_params({}, {}, {})
