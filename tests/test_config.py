"""Every wrong setting is one line that names it; the right ones arrive as they are."""

import dataclasses
import json
import re

import pytest

from configs import base, default, forecast_soil_moisture, voxel_base
from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.config import differences
from tds_jax.errors import UserError
from tds_jax.fields import require_ending, require_folder, require_shares

GROUPS = tasks.groups("pose")


def resolve(**changes):
    """The default config with `group__field=value` changes."""
    values = default.get_config().to_dict()
    for name, value in changes.items():
        group, _, field = name.partition("__")
        (values[group] if field else values)[field or group] = value
    return configuration.resolve(values, GROUPS)


def message(**changes):
    """The one line with which these changes are refused."""
    with pytest.raises(UserError) as caught:
        resolve(**changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


TOO_SMALL = {
    "optim__batch_size": 0,
    "optim__accumulate": 0,
    "optim__steps": 0,
    "optim__learning_rate": -1e-3,
    "optim__weight_decay": -0.1,
    "optim__clip_norm": -1.0,
    "optim__warmup_steps": -1,
    "memory__decoder_chunk": -1,
    "eval__every": -1,
    "eval__batch_size": 0,
    "eval__min_delta": -0.1,
    "eval__patience": -1,
    "checkpoint__every": -1,
    "checkpoint__keep": 0,
    "log__every": 0,
    "data__rotation": -1,
    "data__noise": -0.1,
    "data__gain_spread": -0.1,
    "model__highpass_hz": -1.0,
    "model__power_stride": 0,
    "model__attention_frames": 0,
    "model__user_embedding": -1,
}
OUTSIDE = {
    "seed": (-1, 2**32),
    "optim__end_factor": (-0.1, 1.1),
    "memory__fraction": (-0.1, 1.1),
    "data__workers": (-1, 257),
    "data__threads": (-1, 257),
    "data__prefetch": (0, 1025),
    "model__tracking_share": (-0.1, 1.1),
    "data__channel_drop": (-0.1, 1.0),
}
CHOICES = {
    "optim__optimizer": "adam, adamw, sgd",
    "optim__schedule": "constant, warmup_cosine",
    "memory__remat": "none, dots, names, full",
    "memory__dtype": "float32, bfloat16",
    "memory__matmul_precision": "default, high, highest",
    "eval__mode": "min, max",
    "data__failures": "mask, blocks, reference",
    "model__name": "tds, neuropose",
    "model__alignment": "fixed, reference",
    "model__encoder": "tds, conformer",
    "model__powers": "none, rms, covariance",
    "model__initial_pose": "zeros, learned, given, mixed",
    "task": "pose",
}


@pytest.mark.parametrize(("name", "value"), TOO_SMALL.items())
def test_a_value_below_its_least_is_refused_by_name(name, value):
    assert message(**{name: value}).startswith(f"{name.replace('__', '.')}={value} is ")


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, pair in OUTSIDE.items() for value in pair]
)
def test_a_value_outside_its_range_is_refused_by_name(name, value):
    text = message(**{name: value})
    assert text.startswith(f"{name.replace('__', '.')}={value} is out of range; use ")


@pytest.mark.parametrize(("name", "known"), CHOICES.items())
def test_an_unknown_choice_is_refused_with_the_known_ones(name, known):
    if name == "task":
        with pytest.raises(UserError, match=f"task='nonsense' is not known; use one of {known}"):
            tasks.groups("nonsense")
    else:
        path = name.replace("__", ".")
        expected = f"{path}='nonsense' is not known; use one of {known}"
        assert message(**{name: "nonsense"}) == expected


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_of_the_data_is_above_0_and_at_most_1(share):
    assert message(data__subsample=share) == (
        f"data.subsample={share} must be a share above 0 and at most 1"
    )


@pytest.mark.parametrize("channels", [(-1, 0), (2, 2)])
def test_electrodes_are_named_once_each_from_0(channels):
    text = message(data__channels=channels)
    assert text == f"data.channels={channels} must name each electrode once, numbered from 0"


def settings():
    """(group, field, type) of every engine setting."""
    for group in ("optim", "memory", "eval", "checkpoint", "log"):
        kind = configuration.Config.__dataclass_fields__[group].type
        for field in dataclasses.fields(kind):
            if isinstance(field.type, type):  # tuples are tried below
                yield f"{group}__{field.name}", field.type
    yield "eval__hand_model", str
    yield "data__workers", int
    yield "data__persistent_workers", bool


@pytest.mark.parametrize(("name", "kind"), list(settings()))
def test_every_setting_refuses_every_other_type(name, kind):
    path = name.replace("__", ".")
    values = {int: 2.5, float: "1", bool: "False", str: 3}
    wrong = [values[kind], None, [1]] + ([True] if kind in (int, float) else [1])
    for value in wrong:
        text = message(**{name: value})
        assert text.startswith(f"{path}={value!r} has type {type(value).__name__}; use ")


def test_a_tuple_of_words_is_neither_a_word_nor_of_numbers():
    assert message(optim__frozen="encoder") == "optim.frozen='encoder' must be a tuple"
    assert message(optim__frozen=(1,)) == "optim.frozen=1 has type int; use str"
    assert resolve(optim__frozen=["encoder"]).optim.frozen == ("encoder",)


def test_an_older_run_begins_at_random_and_learns_everything():
    values = default.get_config().to_dict()
    older = {name: v for name, v in values["optim"].items() if name not in ("init_from", "frozen")}
    log = {n: v for n, v in values["log"].items() if n != "to"} | {"tensorboard": True}
    now = tasks.today(values | {"optim": older, "log": log})
    assert configuration.resolve(now, GROUPS).log.to == ("tensorboard",)
    optim = configuration.resolve(now, GROUPS).optim
    assert (optim.init_from, optim.frozen) == ("", ())


def test_an_older_run_that_began_at_zero_goes_on_under_todays_preset():
    values = default.get_config().to_dict()
    model = {name: v for name, v in values["model"].items() if name != "start_at_mean"}
    older = configuration.resolve(tasks.today(values | {"model": model}), GROUPS)
    assert not older.model.start_at_mean
    free = configuration.marked(older, "free")
    assert differences(older.to_dict(), resolve().to_dict(), free) == []


@pytest.mark.parametrize("config", [default, forecast_soil_moisture, voxel_base])
def test_an_older_run_goes_on_with_the_defaults_of_what_it_lacks(config):
    written = json.loads(json.dumps(config.get_config().to_dict()))
    bare = {"model": {k: v for k, v in written["model"].items() if k == "name"}, "data": {}}
    now = tasks.today(written | bare | {"eval": {}})
    added = {name: now[name] for name in ("model", "data", "eval")}
    assert added == json.loads(json.dumps(added))  # a tuple would be another setting than its list
    assert any(isinstance(value, list) for group in added.values() for value in group.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "clip_norm", "end_factor"])
def test_numbers_must_be_finite(name, value):
    assert f"optim.{name}={value}" in message(**{f"optim__{name}": value})


@pytest.mark.parametrize("group", ["optim", "memory", "eval", "checkpoint", "log", "data"])
def test_a_missing_or_unknown_field_is_named_with_its_group(group):
    values = default.get_config().to_dict()
    name = next(iter(values[group]))
    assert message(**{group: {k: v for k, v in values[group].items() if k != name}}).startswith(
        f"{group}.{name} is missing from the config"
    )
    text = message(**{group: values[group] | {"colour": 1}})
    assert text.startswith(f"{group}.colour is not a setting; known here: ")
    assert name in text


def test_missing_unknown_and_flat_groups_are_named():
    values = default.get_config().to_dict()
    del values["log"]
    with pytest.raises(UserError, match=r"^log is missing from the config"):
        configuration.resolve(values, GROUPS)
    assert message(optimm={}).startswith("optimm is not a setting; known here: ")
    assert message(optim=3) == "optim=3 must be a group of settings"


@pytest.mark.parametrize(
    ("batch", "accumulate", "fix"), [(60, 8, "56 or 64"), (7, 2, "6 or 8"), (3, 8, "8")]
)
def test_a_batch_that_accumulation_does_not_divide_comes_with_those_it_does(batch, accumulate, fix):
    assert message(optim__batch_size=batch, optim__accumulate=accumulate) == (
        f"optim.batch_size={batch} is not divisible by optim.accumulate={accumulate}; "
        f"use optim.batch_size={fix}"
    )


def test_warm_up_must_leave_something():
    text = message(optim__warmup_steps=10, optim__steps=10)
    assert text.startswith("optim.warmup_steps=10 leaves nothing of optim.steps=10")
    assert resolve(optim__warmup_steps=10, optim__steps=10, optim__schedule="constant")


@pytest.mark.parametrize("name", ["rollout_freq", "filter_cutoff", "output_scale"])
def test_what_divides_is_above_zero(name):
    for value in (0.0, -1.0):
        text = message(**{f"model__{name}": value})
        assert text.startswith(f"model.{name}={value} ")
        assert "above 0" in text


def test_integers_widen_and_lists_become_tuples():
    config = resolve(optim__learning_rate=1, model__widths=[4, 8])
    assert config.optim.learning_rate == 1.0
    assert type(config.optim.learning_rate) is float
    assert config.model.widths == (4, 8)
    assert "model.widths=3 must be a tuple" in message(model__widths=3)
    assert "model.widths='a' has type str" in message(model__widths=("a", 1))


def test_a_config_comes_back_from_its_json_unchanged():
    config = resolve()
    again = configuration.resolve(json.loads(json.dumps(config.to_dict())), GROUPS)
    assert again == config
    assert differences(again.to_dict(), config.to_dict()) == []


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve().optim.steps = 3


def test_every_setting_of_the_engine_is_in_the_base_config():
    groups = base.get_config().to_dict()
    for group in ("optim", "memory", "eval", "checkpoint", "log"):
        kind = configuration.Config.__dataclass_fields__[group].type
        assert set(groups[group]) == {field.name for field in dataclasses.fields(kind)}


def test_differences_name_what_may_not_change_on_resume():
    old, free = resolve().to_dict(), configuration.marked(resolve(), "free")
    new = resolve(
        optim__steps=7000,
        data__workers=3,
        data__threads=1,
        data__prefetch=9,
        data__persistent_workers=False,
        data__cache_dir="/elsewhere",
        log__every=5,
        memory__decoder_chunk=5,
    ).to_dict()
    assert differences(old, new, free) == []
    new = resolve(seed=4, optim__accumulate=2, model__widths=(8, 8), data__window=4000).to_dict()
    assert differences(old, new, free) == [
        "data.window: 2000 -> 4000",
        "model.widths: [4, 8] -> [8, 8]",
        "seed: 0 -> 4",
    ]


def test_a_setting_that_is_new_or_gone_is_a_difference():
    old, new = resolve().to_dict(), resolve().to_dict()
    del old["eval"]["mode"], new["optim"]["schedule"]
    assert differences(old, new) == [
        "eval.mode: None -> min",
        "optim.schedule: warmup_cosine -> None",
    ]


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0, 0.5, 0.5), (1.2, -0.1, -0.1), (0.5, 0.4, 0.2)])
def test_wrong_shares_are_named(shares):
    with pytest.raises(UserError, match=r"data\.split_ratio=" + re.escape(str(shares))):
        require_shares("data.split_ratio", shares)
    require_shares("data.split_ratio", (0.8, 0.2, 0.0))


def test_a_file_is_not_named_as_another_format(tmp_path):
    for name in ("a.npz", "a.NPZ", "a"):
        require_ending("--output", tmp_path / name, (".npz", ".ply"))
    (tmp_path / "folder.d").mkdir()
    require_ending("--output", tmp_path / "folder.d", (".npz",))
    with pytest.raises(UserError, match=r"a.onnx ends in .onnx, but what is written is .npz; name"):
        require_ending("--output", tmp_path / "a.onnx", (".npz",))


def test_a_folder_is_not_named_as_a_file(tmp_path):
    for name in ("emg", "v1.2", "ECG.d"):
        require_folder("--output", tmp_path / name)
    (tmp_path / "old.csv").mkdir()
    require_folder("--output", tmp_path / "old.csv")
    with pytest.raises(
        UserError, match=r"new\.zarr ends in \.zarr, but what is written is a folder"
    ):
        require_folder("--output", tmp_path / "new.zarr")


@pytest.mark.parametrize("name", ["pose", "forecast", "voxel"])
def test_no_prediction_is_written_into_a_file_named_as_another_format(name, tmp_path):
    job = tasks.job("predict", name)
    predict = job().run if isinstance(job, type) else job
    with pytest.raises(UserError, match=r"--output=.*x\.onnx ends in \.onnx"):
        predict(None, None, tmp_path / "in", tmp_path / "x.onnx")


def test_a_stream_is_not_written_into_a_file_named_as_another_format(tmp_path):
    stream = tasks.job("stream", "pose")()
    with pytest.raises(UserError, match=r"x\.csv ends in \.csv, but what is written is \.hdf5"):
        stream.run(None, None, str(tmp_path / "in"), str(tmp_path / "x.csv"))
