"""Autoencoder, diffusion and consistency as runs: one builds on the other."""

import dataclasses
import json
import shutil
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tds_jax import export, predict, tasks
from tds_jax.data import identity
from tds_jax.data.crew import ALONE
from tds_jax.engine import history, loop, metrics, workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.step import compiled, split
from tds_jax.errors import UserError
from tds_jax.voxel import arriving, evaluation, prediction
from tds_jax.voxel.arriving import Arriving
from tds_jax.voxel.data import pcd
from tds_jax.voxel.data.clouds import read_cloud
from tds_jax.voxel.data.resize import Geometry
from tds_jax.voxel.data.stores import write_store
from tds_jax.voxel.data.volumes import VolumeFiles, read_volume, write_npz
from tds_jax.voxel.data.voxelise import VoxelGrid, radar_volume, stored
from tds_jax.voxel.methods import build, generation, trained
from tds_jax.voxel.methods import diffusion as levels_of
from tds_jax.voxel.methods.autoencoding import Usage
from tds_jax.voxel.methods.distillation import Distillation
from tds_jax.voxel.methods.latents import cached, fingerprint
from tds_jax.voxel.methods.model import LatentDenoiser
from tds_jax.voxel.networks import unet_names
from tds_jax.voxel.prepare import Prepare
from tests.begun import begun
from tests.data.crews import together
from tests.voxel.files import SHAPE, make_volume, write_scene
from tests.voxel.small import batch_of, objective, silenced, small_config, small_task


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("voxel")


@pytest.fixture(scope="module")
def vae(place):
    return begun(place / "vae", small_config(place))


@pytest.fixture(scope="module")
def diffusion(place, vae):
    return begun(place / "diffusion", small_config(place, **on_vae(place)))


@pytest.fixture(scope="module")
def consistency(place, diffusion):
    return begun(place / "consistency", small_config(place, **on_diffusion(place)))


def on_vae(place):
    return {"model__name": "diffusion", "model__autoencoder": str(place / "vae")}


def on_diffusion(place):
    return {"model__name": "consistency", "model__teacher": str(place / "diffusion")}


@pytest.mark.long
def test_all_train_those_first_that_others_learn_from(tmp_path):
    seen = {"model__direct": str(tmp_path / "direct"), "eval__samples": 2}
    for folder, changes in (
        ("vqvae", {"model__name": "vqvae", "model__codes": 8}),
        ("vae", {}),
        ("direct", DIRECT),
        ("diffusion", on_vae(tmp_path) | seen),
        ("consistency", on_diffusion(tmp_path) | seen),
    ):
        config = small_config(tmp_path, **changes)
        task = tasks.get(config)
        workdir.claim(tmp_path / folder, config, task.inputs(), task.digest(), task.data_files())
        assert loop.fit(Blueprint(task, config), tmp_path / folder).complete
        model, _ = workdir.load_model(Blueprint(task, config), tmp_path / folder)
        report = evaluation.evaluate(task, model, "test", tmp_path / folder)
        assert np.isfinite(report.value("intensity_mae"))


@pytest.mark.parametrize(
    "kind",
    ["diffusion", *(pytest.param(k, marks=pytest.mark.long) for k in ("vae", "consistency"))],
)
def test_the_objective_is_a_sum_over_examples(kind, request):
    task, model = request.getfixturevalue(kind)
    graphdef, state = nnx.split(model)

    @jax.jit
    def objective(state, batch):
        return task.loss(nnx.merge(graphdef, state), batch, train=True)[0]

    batch = batch_of(task, [0, 1, 2])
    whole = objective(state, batch)
    alone = [objective(state, batch_of(task, [i])) for i in range(3)]
    np.testing.assert_allclose(whole.sum, sum(one.sum for one in alone), rtol=1e-5)  # f32 sums
    assert whole.weight == sum(one.weight for one in alone) == 3
    counts = jnp.array([1.0, 0.0, 1.0]).reshape(3, *(1,) * (batch["weight"].ndim - 1))
    part = objective(state, batch | {"weight": batch["weight"] * counts})
    np.testing.assert_allclose(part.sum, alone[0].sum + alone[2].sum, rtol=1e-5)
    assert part.weight == 2


def test_a_log_line_of_codes_moves_nothing_to_the_devices():
    states = {"perplexity": Usage(jnp.array([2.0, 2.0, 0.0]))}
    with jax.transfer_guard_host_to_device("disallow"):  # as around the training loop
        assert metrics.compute(metrics.to_host(states))["perplexity"] == pytest.approx(2)


def test_latents_by_two_are_those_by_one_and_each_is_encoded_once(vae, tmp_path):
    task, model = vae
    pairs, encoded = task.data.pairs("test"), []

    def stored(name, crew):
        note = lambda done, total: encoded.append(done)  # noqa: E731
        return cached(tmp_path / name, model, pairs, "", note, crew)

    alone = stored("one", ALONE).read_bytes()
    encoded.clear()
    assert {path.read_bytes() for path in together(2, lambda crew: stored("two", crew))} == {alone}
    assert sorted(encoded) == [i + 1 for i in range(len(pairs))]
    together(2, lambda crew: stored("two", crew))
    assert len(encoded) == len(pairs)


def test_units_are_those_of_the_train_split(vae):
    task, model = vae
    known = task.data.statistics
    np.testing.assert_array_equal(model.target.mean[...], known.target_mean)
    target = batch_of(task, range(6))["target"]
    inside = np.asarray(model.inside(target))
    full = np.asarray(target[..., 0]) > 0
    assert not inside[~full].any()
    # the whole train split
    np.testing.assert_allclose(inside[full][:, 1].mean(), 0, atol=1e-3)
    np.testing.assert_allclose(inside[full][:, 1].std(), 1, atol=1e-3)


def test_a_generator_carries_the_autoencoder_frozen(vae, diffusion):
    theirs, model = vae[1], diffusion[1]
    ours = trained.leaves(model.autoencoder.network)
    jax.tree.map(np.testing.assert_array_equal, ours, trained.leaves(theirs.network))
    _, params, rest = split(model)
    assert set(params) == {"encoder", "unet"}
    assert {"autoencoder", "latent", "radar"} <= set(rest)


def test_latents_are_stored_once_and_are_of_unit_size(vae, diffusion):
    task, model = diffusion
    path = task.method.latents(task.data, "train")
    stored = np.load(path)
    pairs = task.data.pairs("train")
    target = jnp.asarray(pairs.example(2, None)["target"])[None]
    np.testing.assert_allclose(stored[2], vae[1].latent(target)[0], atol=1e-5)
    scaled = np.asarray(model.scaled(jnp.asarray(stored)))
    axes = (0, 1, 2, 3)
    np.testing.assert_allclose(scaled.mean(axes), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axes), task.config.model.sigma_data, rtol=1e-3)
    before = path.stat().st_mtime_ns
    again = generation.stored_latents(vae[1], task.data, "train", "float32")
    assert again == path
    assert path.stat().st_mtime_ns == before


def test_a_student_without_changes_is_its_teacher(diffusion, consistency):
    teacher, model = diffusion[1], consistency[1]
    jax.tree.map(
        np.testing.assert_array_equal, trained.leaves(model.teacher), trained.leaves(teacher)
    )
    _, params, _ = split(model)
    assert set(params) == {"change"}
    still = jax.tree.map(jnp.zeros_like, params["change"])
    nnx.update(model.change, still)
    jax.tree.map(
        np.testing.assert_array_equal, trained.leaves(model.student()), trained.leaves(teacher)
    )


def test_evaluation_lists_methods_and_baselines_and_keeps_thresholds(place, vae):
    task, model = vae
    report = evaluation.evaluate(task, model, "test", place / "vae")
    baselines = {"radar", "radar_dilated", "linear", "prior", "mean", "empty"}
    assert {row.method for row in report.rows} == {"model", *baselines}
    kept = evaluation.Thresholds.read(place / "vae")
    assert set(kept.value) == {"model", "prior", "linear"}
    assert report.value("iou", "empty") == 0
    assert report.value("iou", "radar_dilated") >= 0
    assert len(list((place / "vae" / "plots").glob("test_*.png"))) == 1


def test_few_steps_are_reported_beside_the_teacher(consistency):
    task, model = consistency
    batch = {name: batch_of(task, [0])[name] for name in ("radar", "key")}
    volumes = compiled(model, task.method.volumes)(batch)
    assert list(volumes) == ["1_step", "2_steps", "model", "teacher"]
    assert {volume.shape for volume in volumes.values()} == {(1, 4, 8, 8, 4)}
    assert all(np.isfinite(volume).all() for volume in volumes.values())


def test_predictions_are_files_with_the_inputs_keys(place, diffusion, tmp_path, capsys):
    task, model = diffusion
    folder = next((place / "cache" / "generated").rglob("radar_voxel"))
    evaluation.Thresholds({"model": 0.9}, {}, fingerprint(model)).write(tmp_path)
    written = prediction.Predict().run(task, model, folder, tmp_path / "out", tmp_path)
    assert [path.name for path in written] == ["000000.npz", "000001.npz", "000002.npz"]
    made = read_volume(str(written[0]))
    assert made.shape == task.data.volume_shape
    assert (made.features[:, 0] > 0.9).all()
    again = partial(prediction.Predict().run, task, model, folder, tmp_path / "out", tmp_path)
    (tmp_path / "out" / "000000.npz").unlink()
    with pytest.raises(UserError, match=r"1.npz, \S+2.npz are there already; .*--overwrite$"):
        again()
    assert not (tmp_path / "out" / "000000.npz").exists()
    assert again(overwrite=True) == written
    last, target = folder / "000002.npz", tmp_path / "alone.npz"
    (alone,) = prediction.Predict().run(task, model, last, target, tmp_path)  # as in its folder
    together = read_volume(str(written[2]))
    np.testing.assert_array_equal(read_volume(str(alone)).features, together.features)
    said = capsys.readouterr().err.splitlines()
    assert all(line.startswith("predicting: ") for line in said)  # slow work tells how far it is
    evaluation.Thresholds({"model": 0.9}, {}, "of an older checkpoint").write(tmp_path)
    source, target = folder / "000000.npz", tmp_path / "one.npz"
    told = history.made_by(tmp_path / "line\nfeed", 7)
    run = partial(prediction.Predict().run, task, model, source, workdir=tmp_path, made=told)
    with np.load(run(target)[0]) as one:
        named = {"coords", "features", "shape", "origin_m", "voxel_size_m"}
        assert set(one) == {*named, "run", "step", "version"}
        assert (str(one["run"]), int(one["step"])) == ("line feed", 7)
        z, x, y = task.data.geometry.size
        np.testing.assert_array_equal(one["voxel_size_m"], (x, y, z))
        assert len(one["coords"]) >= len(made.coords)
    assert "thresholds.json was calibrated for other weights" in capsys.readouterr().err


def test_clouds_are_predicted_as_their_volumes_and_a_bad_file_is_left_out(
    place, diffusion, tmp_path, capsys
):
    task, model = diffusion
    folder, out = tmp_path / "scene" / "radar_voxel", tmp_path / "out"
    folder.mkdir(parents=True)
    grid = arriving.grid_of(task.data.native_geometry)
    # one point on a face of the grid, one outside
    points = np.random.default_rng(0).uniform(grid.ranges[::2], grid.ranges[1::2], (20, 3))
    points[:2] = (grid.ranges[0], 0, 0), (grid.ranges[1] + 1, 0, 0)
    columns = [*points.T, np.arange(20.0), np.linspace(-3, 3, 20)]
    names = ("x", "y", "z", "rcs", "v_r")
    (folder / "7.pcd").write_bytes(pcd.encoded(dict(zip(names, columns, strict=True))))
    seen = read_cloud(folder / "7.pcd", "")
    write_npz(folder / "8.npz", stored(radar_volume(seen, grid, np.eye(4))))
    (folder / "9.npz").write_bytes(b"broken")
    np.column_stack(columns).astype("f4").tofile(folder / "10.bin")
    evaluation.Thresholds({"model": 0.0}, {}, fingerprint(model)).write(tmp_path)
    job = prediction.Predict(format="ply")
    with pytest.raises(UserError, match=r"has 2 of 4 predictions; left out, .*: 9.npz, 10.bin"):
        job.run(task, model, folder.parent, out, tmp_path)
    said = capsys.readouterr().err
    for line in (
        "radar_voxel is read",
        "radar clouds are taken to be in the grid's frame",
        "10.bin: its columns have no names and the run's data tell none; give --layout",
        "9.npz: cannot be read",
        "note: radar: 1 of 20 points are outside of the ranges and left out",
    ):
        assert line in said
    assert sorted(path.name for path in out.iterdir()) == ["7.ply", "8.ply"]
    assert (out / "7.ply").read_bytes() == (out / "8.ply").read_bytes()
    made = read_cloud(out / "7.ply", "")
    everywhere = task.data.geometry.points(np.ones(task.data.shape, bool))
    np.testing.assert_array_equal(made.points, everywhere.astype(np.float32))
    assert np.isfinite(made.intensity).all()
    assert np.isfinite(made.doppler).all()


def test_a_run_on_a_large_grid_begins_by_saying_what_that_needs(place):
    large = small_task(place, data__grid="resize", data__shape=(64, 128, 128))
    assert large.warnings()[-1].startswith("a grid of 64 x 128 x 128 voxels is large: voxel_light")
    assert small_task(place).warnings() == []


def test_folders_of_one_sensor_are_found_in_scenes(tmp_path):
    names = ("radar_voxel", "radar/training/velodyne")
    for scene in ("2", "10"):
        (tmp_path / "all" / scene / names[1]).mkdir(parents=True)
    (tmp_path / "all" / "2" / names[0]).mkdir()
    inside = [tmp_path / "all" / "2" / names[0], tmp_path / "all" / "10" / names[1]]
    assert arriving.folders_of(tmp_path / "all", names) == [(inside[0], "2"), (inside[1], "10")]
    assert arriving.folders_of(inside[0].parent, names) == [(inside[0], "")]
    (inside[0] / "1.PCD").touch()
    assert arriving.folders_of(inside[0], names) == [(inside[0], "")]
    (tmp_path / "stored" / "a").mkdir(parents=True)
    (tmp_path / "stored" / "a" / "000000-000063.h5").touch()
    (tmp_path / "stored" / "b" / names[0]).mkdir(parents=True)
    stored = [(tmp_path / "stored" / "a", "a"), (tmp_path / "stored" / "b" / names[0], "b")]
    assert arriving.folders_of(tmp_path / "stored", names) == stored
    assert arriving.folders_of(stored[0][0], names) == [(stored[0][0], "")]


def test_stores_of_prepare_are_predicted_frame_by_frame(place, diffusion, tmp_path, capsys):
    """As the same volumes in files of their own; what cannot be read is named, the rest goes on."""
    task, model = diffusion
    volumes = next((place / "cache" / "generated").rglob("radar_voxel"))
    frames = {path.stem: (read_volume(str(path)),) * 2 for path in sorted(volumes.iterdir())}
    names, shape = sorted(frames), task.data.volume_shape
    for scene, part in (("a", names[:2]), ("b", names[2:]), ("b", ["lost"])):
        (tmp_path / "in" / scene).mkdir(parents=True, exist_ok=True)
        store = tmp_path / "in" / scene / f"{part[0]}.h5"
        write_store(store, {n: frames.get(n, frames[names[0]]) for n in part}, shape, "", None)
    store.write_bytes(store.read_bytes()[:500])
    evaluation.Thresholds({"model": 0.0}, {}, fingerprint(model)).write(tmp_path)
    run = partial(prediction.Predict().run, task, model, workdir=tmp_path)
    with pytest.raises(UserError, match=r"has 3 of 4 predictions; left out, .*: lost.h5$"):
        run(tmp_path / "in", tmp_path / "out")
    assert "warning: left out" in capsys.readouterr().err
    run(volumes, tmp_path / "alone")
    made = {path.name: path for path in (tmp_path / "out").glob("*/*")}
    assert {path.parent.name for path in made.values()} == {"a", "b"}
    assert sorted(made) == sorted(path.name for path in (tmp_path / "alone").iterdir())
    for name, path in made.items():
        assert path.read_bytes() == (tmp_path / "alone" / name).read_bytes()
    one = tmp_path / "in" / "a" / f"{names[0]}.h5"
    with pytest.raises(UserError, match=r"one.npz must be a folder: --input holds many frames"):
        run(one, tmp_path / "one.npz")
    shutil.copy(one, one.with_name("twin.h5"))
    with pytest.raises(UserError, match=r"both hold what goes to .*000000.npz; remove one"):
        run(one.parent, tmp_path / "twice")
    one.with_name("twin.h5").unlink()
    geometry = {"shape": shape, "ranges": [0, 1, 0, 1, 0, 1]}
    (tmp_path / "in" / "geometry.json").write_text(json.dumps(geometry))
    with pytest.raises(UserError, match=r"in: its volumes have voxels of .* trained on"):
        run(tmp_path / "in", tmp_path / "elsewhere")


def test_volumes_that_lie_elsewhere_than_the_runs_are_refused(tmp_path):
    geometry = {"shape": SHAPE, "ranges": [0, 6, 0, 8, 0, 4]}
    (tmp_path / "geometry.json").write_text(json.dumps(geometry))
    inside = tmp_path / "a" / "radar_voxel"
    inside.mkdir(parents=True)
    same = Geometry.of((0, 6, 0, 8, 0, 4), SHAPE)
    for folder in (tmp_path, inside.parent, inside):
        arriving.require_place(folder, same)
        for ranges in ((0, 12, 0, 8, 0, 4), (1, 7, 0, 8, 0, 4)):
            with pytest.raises(UserError, match=r"voxels of \(1, 1, 1\) m from .* trained on .* m"):
                arriving.require_place(folder, Geometry.of(ranges, SHAPE))
    arriving.require_place(tmp_path, Geometry.of((0, 6, 0, 8, 0, 4), (12, 8, 4)))


def test_the_frames_of_a_store_are_samples_by_name(tmp_path):
    pairs = {name: (make_volume(i), make_volume(9 + i)) for i, name in enumerate(("7", "8"))}
    write_store(tmp_path / "a.H5", pairs, SHAPE, "", None)
    grid = VoxelGrid((0, 6, 0, 8, 0, 4), SHAPE)
    for side, (kind, sensor) in enumerate((("radar", "radar"), ("target", "LiDAR"))):
        how = Arriving(sensor, grid, "", None, None, VolumeFiles(1, 2**20))
        samples = arriving.samples_of(tmp_path / "a.H5", tmp_path / "out" / "a.ply", kind)
        assert [one.name for one in samples] == ["a.H5 7", "a.H5 8"]
        assert [one.target for one in samples] == [tmp_path / "out" / f"{n}.ply" for n in (7, 8)]
        for one, name in zip(samples, pairs, strict=True):
            read = how.read(one.source)
            np.testing.assert_array_equal(read.coords, pairs[name][side].coords)
            np.testing.assert_array_equal(read.features, pairs[name][side].features)


def test_what_clouds_need_is_known_from_how_the_data_were_prepared(tmp_path):
    assert arriving.prepared_with("") is arriving.prepared_with(str(tmp_path)) is None
    known = Prepare(radar_columns="x,y,z,rcs", rotation=(0, -1, 0, 1, 0, 0, 0, 0, 1))
    values = dataclasses.asdict(known) | {"of another version": 1}
    (tmp_path / "prepared.json").write_text(json.dumps(values))
    assert arriving.prepared_with(str(tmp_path)) == known
    for ranges, resolution in (
        ((0, 120, -20, 20, -6, 10), 0.2),
        ((-2.7, 15.6, -3, 3, -3, 3), 0.3),
    ):
        grid = VoxelGrid.of(ranges, resolution)
        assert arriving.grid_of(Geometry.of(grid.ranges, grid.shape)) == grid


@pytest.mark.parametrize(
    ("door", "given", "words"),
    [
        (predict, {"stream": True}, "--stream is not offered for task 'voxel'; leave it out"),
        (export, {}, "export is not offered for task 'voxel'; use predict"),
    ],
)
def test_what_volumes_cannot_do_is_one_line(place, vae, monkeypatch, door, given, words):
    values = {"workdir": str(place / "vae"), "input": ".", "output": str(place / "out.npz")}
    monkeypatch.setattr(door, "flags", SimpleNamespace(FLAGS=SimpleNamespace(**values | given)))
    with pytest.raises(UserError, match=words):
        door.main()


def test_a_run_needs_no_other_folder_once_it_is_trained(place, diffusion, tmp_path):
    config = dataclasses.replace(
        diffusion[0].config,
        model=dataclasses.replace(diffusion[0].config.model, autoencoder=str(tmp_path / "gone")),
    )
    inputs = json.loads((place / "diffusion" / "inputs.json").read_text())["inputs"]
    task = tasks.get(config, inputs)
    model, _ = workdir.load_model(Blueprint(task, config), place / "diffusion")
    jax.tree.map(np.testing.assert_array_equal, split(model)[2], split(diffusion[1])[2])


def test_another_architecture_than_the_autoencoders_is_refused(place, vae):
    task = small_task(place, **on_vae(place), model__base=4)
    with pytest.raises(UserError, match=r"model.base=4 but .*vae was trained with 2"):
        task.source("train")
    wrong = {"model__name": "consistency", "model__teacher": str(place / "vae")}
    with pytest.raises(UserError, match=r"model.teacher=.* was trained as voxel 'vae'"):
        small_task(place, **wrong).source("train")


@pytest.mark.parametrize("kind", ["diffusion", "consistency"])
def test_what_a_generator_learns_from_has_seen_the_same_data_or_it_is_said(
    kind, place, tmp_path, request
):
    request.getfixturevalue("diffusion")
    chosen = on_vae(place) if kind == "diffusion" else on_diffusion(place)
    setting = {"diffusion": "autoencoder", "consistency": "teacher"}[kind]
    said = f"model.{setting}={chosen[f'model__{setting}']} was trained on other data"

    def warned(**changes):
        return [w for w in small_task(place, **chosen, **changes).warnings() if said in w]

    assert not warned()
    turned = {"val": ("street00",), "test": ("street01",), "train": ("street02", "street03")}
    assert warned(**{f"data__{split}_scenes": scenes for split, scenes in turned.items()})
    for number in range(4):  # of the same names
        write_scene(tmp_path, f"street{number:02}", frames=3, shape=(8, 8, 4))
    assert warned(data__path=str(tmp_path))


def test_a_grid_that_does_not_divide_is_refused_with_the_way_out(tmp_path):
    changes = {"model__name": "diffusion", "model__autoencoder": "x", "data__multiple": (1, 1, 1)}
    with pytest.raises(UserError, match=r"\(4, 8, 6\) is not divisible by \(2, 4, 4\).*'pad'"):
        small_task(
            tmp_path, **changes, data__synthetic_shape=(4, 8, 6), model__unet_multipliers=(1, 1)
        )


def test_a_run_goes_on_without_what_cannot_be_read_and_says_so(tmp_path):
    root = tmp_path / "scenes"
    for name in "abc":
        write_scene(root, name, shape=(8, 8, 4))
    (root / "a" / "radar_voxel" / "000001.npz").write_bytes(b"broken")
    (root / "d" / "target_voxel").mkdir(parents=True)
    task = small_task(tmp_path, data__path=str(root), data__max_bad_files=1)
    assert "left out" in task.warnings()[0]
    assert "a/radar_voxel/000001.npz: cannot be read" in task.warnings()[0]
    assert "d: no radar_voxel/ in it" in task.warnings()[1]
    assert len(task.data.pairs("train")) == 3
    assert len(task.data_files()) == 2 * 11
    with pytest.raises(UserError, match=r"1 files .* more than data.max_bad_files=0: .*000001.npz"):
        small_task(tmp_path, data__path=str(root), data__max_bad_files=0)


def test_what_a_run_reads_is_its_volumes_and_where_they_lie(tmp_path):
    root = tmp_path / "scenes"
    for name in "abc":
        write_scene(root, name, shape=(8, 8, 4))
    geometry = {"shape": [8, 8, 4], "ranges": [0, 1, 0, 1, 0, 1]}
    (root / "geometry.json").write_text(json.dumps(geometry))
    task = small_task(tmp_path, data__path=str(root))
    on_disk = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert set(task.data_files()) == on_disk
    assert "geometry.json" in on_disk
    before = identity.fingerprint(task.data_files())
    (root / "geometry.json").write_text("replaced")
    assert identity.fingerprint(task.data_files()) != before


def test_it_says_where_its_data_are_and_how_much_of_what_they_hold(place):
    task = tasks.get(small_config(place))
    folder, words, generated = task.data_about()
    assert generated
    assert folder.startswith(str(place))
    assert words == (
        "4 scenes, 12 frames (train 6, val 3, test 3) of 8 x 8 x 4 voxels (X, Y, Z), for the model "
        "8 x 8 x 4"
    )


def without_radar(batch):
    return batch | {"radar": jnp.zeros_like(batch["radar"])}


def test_a_denoiser_learns_from_what_the_radar_saw(diffusion):
    task, model = diffusion
    batch = batch_of(task, range(3))
    assert (np.asarray(batch["radar"])[..., 0] > 0).any()
    assert objective(task, model, batch) != objective(task, model, without_radar(batch))


def test_a_silent_network_is_charged_what_the_levels_weigh(diffusion):
    """Its estimate is skip * noisy: the charge is known by hand, levels and noise by the keys."""
    task, model = diffusion
    graphdef, state = nnx.split(model)
    model = nnx.merge(graphdef, state)
    model.unet = silenced(model.unet)
    batch = batch_of(task, range(3))
    clean = np.asarray(model.scaled(batch["latent"]), np.float64)
    sigma = np.asarray(build.levels(task.config.model).draw(batch["key"]), np.float64)
    noise = levels_of.noise(batch["key"], levels_of.NOISE_DRAW, clean.shape[1:])
    at = sigma[:, None, None, None, None]
    data = task.config.model.sigma_data
    estimate = data**2 / (at**2 + data**2) * (clean + at * np.asarray(noise, np.float64))
    error = np.mean((estimate - clean) ** 2, axis=(1, 2, 3, 4))
    charge = (sigma**2 + data**2) / (sigma * data) ** 2 * error
    # f32 means of some hundred squares
    np.testing.assert_allclose(objective(task, model, batch), charge.sum(), rtol=1e-5)


def test_a_students_answer_at_the_lowest_level_is_the_point_itself(consistency):
    task, model = consistency
    student, batch = model.student(), batch_of(task, range(3))
    jump = task.method.jump(student, student.condition(batch["radar"]))
    x = model.teacher.scaled(batch["latent"]) * 3
    lowest = jnp.full((3,), build.levels(task.config.model).lowest, jnp.float32)
    np.testing.assert_array_equal(jump(x, lowest), x)
    assert not np.allclose(jump(x, lowest * 100), x, rtol=1e-3)


def test_the_teacher_is_asked_with_the_radar(consistency):
    """A student that sees nothing of the radar is charged by it all the same."""
    task, model = consistency
    graphdef, state = nnx.split(model)
    model = nnx.merge(graphdef, state)
    blind = jax.tree.map(jnp.negative, nnx.to_pure_dict(nnx.state(model.teacher.encoder)))
    nnx.update(model.change.encoder, blind)
    batch = batch_of(task, range(3))
    condition = model.student().condition
    np.testing.assert_array_equal(condition(batch["radar"]), 0)
    assert objective(task, model, batch) != objective(task, model, without_radar(batch))


def test_a_student_learns_from_what_the_radar_saw(consistency):
    """Its teacher being blind."""
    task, model = consistency
    graphdef, state = nnx.split(model)
    model = nnx.merge(graphdef, state)
    weights = nnx.to_pure_dict(nnx.state(model.teacher.encoder))
    model.teacher.encoder = silenced(model.teacher.encoder)
    nnx.update(model.change.encoder, weights)
    batch = batch_of(task, range(3))
    np.testing.assert_array_equal(model.teacher.condition(batch["radar"]), 0)
    assert objective(task, model, batch) != objective(task, model, without_radar(batch))


@pytest.fixture(scope="module")
def direct(place):
    return begun(place / "direct", small_config(place, **DIRECT))


DIRECT = {"model__name": "direct"}


@pytest.fixture(scope="module")
def told(place, vae, direct):
    """A diffusion that sees one answer, too."""
    changes = on_vae(place) | {"model__direct": str(place / "direct")}
    return begun(place / "told", small_config(place, **changes))


def test_one_answer_is_a_function_of_the_radar_and_of_where_a_cell_is(direct):
    task, model = direct
    batch = batch_of(task, range(3))
    batch = {"radar": batch["radar"], "key": batch["key"]}
    run = compiled(model, lambda model, batch: task.method.volumes(model, batch)["model"])
    volume = run(batch)
    assert volume.shape == batch["radar"].shape
    assert ((volume[..., 0] > 0) & (volume[..., 0] < 1)).all()
    assert not np.allclose(volume, run(without_radar(batch)), atol=1e-3)
    moved = run(batch | {"radar": jnp.roll(batch["radar"], 2, axis=2)})
    assert not np.allclose(np.roll(volume, 2, axis=2)[:, 1:-1, 3:-1], moved[:, 1:-1, 3:-1])


@pytest.mark.long
def test_a_diffusion_carries_the_answer_it_sees_frozen(direct, told):
    task, model = told
    ours, theirs = trained.leaves(model.direct), trained.leaves(direct[1])
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert set(split(model)[1]) == {"encoder", "unet"}
    radar = batch_of(task, range(3))["radar"]
    graphdef, state = nnx.split(model)
    condition = jax.jit(lambda state: nnx.merge(graphdef, state).condition(radar))
    other = nnx.merge(graphdef, state)
    other.direct.around.network = silenced(other.direct.around.network)
    assert not np.allclose(condition(state), condition(nnx.state(other)))
    batch = {name: batch_of(task, [0])[name] for name in ("radar", "key")}
    answer = compiled(model, lambda model, batch: generation.one_answer(model, batch))(batch)
    run = compiled(direct[1], lambda model, batch: direct[0].method.volumes(model, batch))
    np.testing.assert_allclose(answer["direct"], run(batch)["model"], rtol=1e-4, atol=1e-4)
    alone = dataclasses.replace(task.config.model, direct="")
    assert task.method.digest() != task.under(replaced(task.config, alone)).method.digest()


def replaced(config, model):
    return dataclasses.replace(config, model=model)


GUIDED = {"model__guidance_dropout": 0.5, "model__guidance": 2.0, "model__name": "diffusion"}


@pytest.fixture(scope="module")
def guided(place):
    """(the method of a diffusion, a batch of it), without a model."""
    method = generation.Diffusion(small_config(place, **GUIDED, model__autoencoder="x"))
    keys = np.random.default_rng(0).integers(2**32, size=(6, 2), dtype=np.uint32)
    batch = {"radar": jnp.ones((6, 4, 8, 8, 4)), "key": jnp.asarray(keys), "weight": jnp.ones(6)}
    return method, batch | {"latent": jnp.ones((6, 4, 4, 4, 2))}


def test_guidance_goes_on_from_what_is_likely_without_a_condition(guided):
    method, batch = guided
    model = SimpleNamespace(guidance=2.0, denoise=lambda condition: lambda x, sigma: x + condition)
    condition, x = jnp.full((3, 2), 5.0), jnp.ones((3, 2))
    estimate = LatentDenoiser.guided(model, condition)
    np.testing.assert_allclose(estimate(x, jnp.ones(3)), 1 + 2 * 5.0)
    model.guidance = 1.0
    np.testing.assert_allclose(LatentDenoiser.guided(model, condition)(x, jnp.ones(3)), 1 + 5.0)
    asked = SimpleNamespace(
        condition=lambda radar: radar,
        guided=lambda condition: lambda x, sigma: 0 * x + 3.0,
        anchor=lambda radar: 2.0 * radar[:, :, ::2, ::2, :2],
    )
    drawn = generation.sampler(method._config, asked, batch)(1)
    np.testing.assert_allclose(drawn, 3.0 + 2.0, rtol=1e-5)  # around the one answer to ones


def test_some_examples_learn_without_their_condition_chosen_by_their_keys(guided):
    method, batch = guided
    seen = []

    def denoise(condition):
        seen.append(condition)
        return lambda x, sigma: x

    model = SimpleNamespace(
        data=0.5, scaled=lambda latent: latent, denoise=denoise,
        condition=lambda radar: jnp.ones((len(radar), 4, 4, 4, 2)), anchor=lambda radar: 0.0,
    )  # fmt: skip
    method.loss(model, batch, train=True)
    method.loss(model, batch | {"key": batch["key"][::-1]}, train=True)
    method.loss(model, batch, train=False)
    kept = [np.asarray(one).reshape(6, -1) for one in seen]
    assert set(kept[0].min(axis=1)) == set(kept[0].max(axis=1)) == {0.0, 1.0}
    np.testing.assert_array_equal(kept[1], kept[0][::-1])
    assert kept[2].all()  # looks on validation are of the model as it samples


def test_what_the_one_answer_says_already_is_not_learned(guided):
    method, batch = guided
    model = SimpleNamespace(
        data=0.5, scaled=lambda latent: 3 * latent, anchor=lambda radar: jnp.float32(3.0),
        condition=lambda radar: radar[:, :, ::2, ::2, :2],
        denoise=lambda condition: lambda x, sigma: 0 * x,
    )  # fmt: skip
    assert method.loss(model, batch, train=False)[0].sum == 0  # latents are 1 everywhere
    model.anchor = lambda radar: jnp.float32(0.0)
    assert method.loss(model, batch, train=False)[0].sum > 0


@pytest.mark.parametrize("method_of", [generation.Diffusion, Distillation])
def test_draws_are_examples_with_keys_of_their_own(guided, method_of):
    config, batch = guided[0]._config, guided[1]
    radar = np.random.default_rng(0).normal(size=batch["radar"].shape).astype(np.float32)
    batch = batch | {"radar": jnp.asarray(radar)}

    def told(condition):
        return lambda x, sigma: x / 2 + jnp.sin(sigma)[:, None, None, None, None] * condition

    model = SimpleNamespace(
        data=0.5, scaled=lambda latent: latent, denoise=told, guided=told, network=told,
        condition=lambda radar: radar[:, :, ::2, ::2, :2], anchor=lambda radar: 0.0,
    )  # fmt: skip
    model.teacher, model.student = model, lambda: model
    several = method_of(replaced(config, dataclasses.replace(config.model, draws=3)))
    keys, *leaves = generation.repeated(3, batch["key"], batch["latent"], batch["radar"])
    assert len(np.unique(keys, axis=0)) == 18
    np.testing.assert_array_equal(leaves[1], np.repeat(radar, 3, axis=0))
    apart = {"key": keys, "latent": leaves[0], "radar": leaves[1], "weight": jnp.ones(18)}
    one = method_of(config).loss(model, apart, train=True)[0]
    objective = several.loss(model, batch, train=True)[0]
    np.testing.assert_allclose(objective.sum, one.sum / 3, rtol=1e-5)  # f32 sums of 18
    assert objective.weight == 6


def test_samples_are_independent_draws_and_their_mean():
    def one(draw):
        return jnp.full((2, 1, 1, 1, 4), draw, jnp.float32)

    mean, first, each = generation.drawn(one, 3)
    np.testing.assert_array_equal(mean, np.full((2, 1, 1, 1, 4), 2))
    np.testing.assert_array_equal(first, one(1))
    np.testing.assert_array_equal(each[0].ravel(), [1, 2, 3])
    assert set(generation.with_samples(first, each)) == {"sample", "samples"}
    assert generation.with_samples(first, each[:, :1]) == {}


def test_latents_of_a_codebook_are_looked_up_before_they_are_decoded(place):
    config = small_config(place, model__name="vqvae", model__codes=8)
    model = build.autoencoder(config, nnx.Rngs(0))
    codes = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    model.network.codebook.codes[...] = jnp.asarray(codes)
    exact = codes[np.arange(8).repeat(8)].reshape(1, 4, 4, 4, 2)
    apart = np.linalg.norm(codes[:, None] - codes[None], axis=-1)
    near = exact + np.float32(0.1) * apart[apart > 0].min()
    asked = []
    model.network.decode = lambda z: asked.append(z) or jnp.zeros((1, 4, 8, 8, 4))
    model.decode(jnp.asarray(near))
    # the codes are found again, but for a rounding of z + (code - z)
    np.testing.assert_allclose(asked[0], exact, atol=1e-5)


@pytest.mark.long
def test_an_imported_diffusion_sees_the_radar_as_its_autoencoder_does(place, vae):
    model = vae[0].config.model
    sizes = {"model__condition_base": model.base, "model__condition_blocks": model.blocks}
    sizes |= {"model__condition_channels": model.latent_channels}
    task, begun_model = begun(place / "in", small_config(place, **on_vae(place), **sizes))
    _, params, rest = split(begun_model)
    encoder = unet_names.radar_encoder(params["encoder"], rest["autoencoder"])
    nnx.update(begun_model.encoder, jax.tree.map(jnp.asarray, encoder))
    nnx.update(begun_model.radar, rest["autoencoder"]["target"])
    batch = {"radar": batch_of(task, range(1))["radar"]}
    seen = compiled(begun_model, lambda model, batch: model.condition(batch["radar"]))(batch)
    expected = compiled(vae[1], lambda model, batch: model.latent(batch["radar"]))(batch)
    # f32 sums of a hundred products, through four layers
    np.testing.assert_allclose(seen, expected, rtol=1e-3, atol=1e-4)


def test_the_originals_encoder_of_the_radar_is_two_convolutions_in_one():
    rng = np.random.default_rng(0)
    out = {"kernel": rng.normal(size=(1, 1, 1, 3, 4)), "bias": rng.normal(size=4)}
    point = {"kernel": rng.normal(size=(1, 1, 1, 2, 2)), "bias": rng.normal(size=2)}
    encoder = {"out": {"norm": {"scale": np.ones(3)}, "conv": out}, "down": {"bias": np.ones(5)}}
    network = {"encoder": encoder, "quant_conv": point}
    ours = {"kernel": np.zeros((1, 1, 1, 3, 2)), "bias": np.zeros(2)}
    params = encoder | {"out": {"norm": encoder["out"]["norm"], "conv": ours}}
    found = unet_names.radar_encoder(params, {"network": network})
    x = rng.normal(size=(7, 3))
    means = (x @ out["kernel"][0, 0, 0] + out["bias"])[:, :2]
    conv = found["out"]["conv"]
    expected = means @ point["kernel"][0, 0, 0] + point["bias"]
    np.testing.assert_allclose(x @ conv["kernel"][0, 0, 0] + conv["bias"], expected, rtol=1e-12)
    assert found["down"] is encoder["down"]
    other = params | {"down": {"bias": np.ones(6)}}
    assert unet_names.radar_encoder(other, {"network": network}) is None
    assert unet_names.radar_encoder(params, {"network": {"encoder": encoder}}) is None
