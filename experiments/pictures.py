"""Draws the pictures of docs/ from trained runs, each beside what is true.

    python -m experiments.pictures --pose=runs/powers --voxel=runs/voxel_direct \\
        --forecast=runs/forecast_air_temperature --fields=air_temperature.nc
    python -m experiments.pictures --methods=runs/powers --ensemble=runs/forecast_air_ensemble \\
        --answers runs/voxel_direct runs/voxel_folded runs/voxel_folded_consistency

The first writes docs/pictures/pose.png, forecast.png, voxel.png, and families.png with one panel of
each; the second what evaluation drew of a pose run's methods and of an ensemble, and one street
from above as several runs answer it. All is of the test split, which no run has seen: a recording
of a seen user, a forecast for the middle of the split, a frame of an unseen street.
"""

import argparse
import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas
import xarray as xr

import tds_jax
from tds_jax import cli, tasks
from tds_jax.drawing import new_figure, save
from tds_jax.pose.joints import joint_names
from tds_jax.voxel.data.volumes import Volume, VolumeFiles, find_scenes

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
SECONDS = (7.0, 15.0)  # of a recording, drawn
JOINTS = (5, 9, 13)  # index, middle and ring MCP flexion
ELECTRODES = 6
LEAD = 3  # days
TRUE, PREDICTED = "0.25", "#d95f0e"


def pose(run: tds_jax.Run, figure: Any) -> str:
    """EMG of some electrodes, and angles predicted from all of them over the true ones."""
    folder = Path(tasks.get(run.config).data_about().folder)
    table = pandas.read_csv(folder / "metadata.csv")
    name = table[table.split.eq("test") & table.generalization.eq("session")].filename.iloc[0]
    with h5py.File(next(folder.glob(f"{name}*"))) as file:
        rows, rate = file["emg2pose/timeseries"][:], float(file["emg2pose"].attrs["sample_rate"])
    poses = run.predict(rows["emg"], rate_hz=rate)
    shown = slice(*(int(second * rate) for second in SECONDS))
    seconds = np.arange(len(rows))[shown] / rate
    emg, angles = rows["emg"][shown, :ELECTRODES], rows["joint_angles"][shown]
    angles = np.where(np.any(angles, axis=1, keepdims=True), angles, np.nan)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.5))
    apart = 6 * emg.std()
    above.plot(seconds, emg + apart * np.arange(ELECTRODES), color=TRUE, lw=0.35, rasterized=True)
    above.set_ylabel(f"EMG, {ELECTRODES}\nof {rows['emg'].shape[1]}")
    above.set_yticks([])
    for offset, joint in enumerate(JOINTS):
        for values, colour, label in (
            (angles, TRUE, "true"),
            (poses[shown], PREDICTED, "predicted"),
        ):
            label = label if not offset else None
            line = np.degrees(values[:, joint]) + 110 * offset
            below.plot(seconds, line, color=colour, lw=1.5, label=label)
    names = [joint_names(angles.shape[1])[j].split("_")[0] for j in JOINTS]
    below.set_yticks([110 * i + 35 for i in range(len(JOINTS))], names)
    below.set_ylabel("finger flexion")
    below.set_xlabel("seconds")
    below.legend(ncols=2, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 0.97), fontsize=9)
    return "muscle signals → hand pose"


def forecast(run: tds_jax.Run, fields: Path, figure: Any) -> str:
    """The map predicted some days ahead, and the one that came."""
    values, target = run.config.to_dict(), run.config.data.target
    values["data"]["path"] = str(fields)
    task = tasks.get(cli.checked(values))
    test = task.split["test"]
    day = task.fields.days[test[len(test) // 2]]
    with xr.open_dataset(fields) as data:
        made = run.predict(data)[target].sel(time=day).isel(prediction_timedelta=LEAD - 1)
        daily = data[target].resample(time="1D").mean()
        came = daily.sel(time=day + np.timedelta64(LEAD, "D")).load()
    maps = {f"forecast, {LEAD} days ahead": made, f"what came on {day + LEAD}": came}
    axes = figure.subplots(2, 1, sharex=True)
    for axis, (title, one) in zip(axes, maps.items(), strict=True):
        mesh = axis.pcolormesh(
            came[came.dims[1]], came[came.dims[0]], one, vmin=came.min(), vmax=came.max(),
            cmap="RdYlBu_r", shading="nearest",
        )  # fmt: skip
        axis.set_title(title, fontsize=9)
        axis.set_ylabel("latitude")
    axes[1].set_xlabel("longitude")
    figure.colorbar(mesh, ax=axes, label=f"{target} [{came.attrs.get('units', 'K')}]")
    return "past days → coming days"


def voxel(runs: Mapping[str, tds_jax.Run], figure: Any) -> str:
    """What the radar saw of a street, what runs make of it, and what a LiDAR saw: from above."""
    config = next(iter(runs.values())).config
    folder = tasks.get(config).data_about().folder
    frames = find_scenes(folder)[-1].frames  # scenes go to train, val and test in their order
    frame = frames[len(frames) // 2]
    files = VolumeFiles(2, 2**20)
    seen = {"the radar": files.read(frame.radar, "radar").dense()}
    for name, run in runs.items():
        found = run.predict(seen["the radar"].transpose(1, 2, 0, 3))
        seen[name] = Volume(found.coords, found.features, found.shape).dense()
    seen["a LiDAR"] = files.read(frame.target, "target").dense()
    x0, x1, y0, y1, z0, z1 = config.data.ranges
    axes = figure.subplots(1, len(seen), sharey=True)
    for axis, (name, volume) in zip(axes, seen.items(), strict=True):
        occupied = volume[..., 0] > 0
        top = (
            len(occupied) - 0.5 - occupied[::-1].argmax(axis=0)
        )  # of the highest voxel, its middle
        height = np.where(occupied.any(axis=0), z0 + (z1 - z0) * top / len(occupied), np.nan)
        image = axis.imshow(
            height[:, ::-1],
            origin="lower",
            extent=(y1, y0, x0, x1),
            cmap="viridis",
            vmin=z0,
            vmax=z1,
        )
        axis.set_title(f"{name}\n{int(occupied.sum())} voxels", fontsize=9)
        axis.set_facecolor("#f4f4f1")
        axis.set_xlabel("y left [m]")
    axes[0].set_ylabel("x forward [m]")
    figure.colorbar(image, ax=axes, label="height [m]", shrink=0.6)
    return "radar → what a LiDAR would see"


Draw = Callable[[Any], str]


def alone(draw: Draw, path: Path, width: float, height: float) -> None:
    """One family's picture, for its own page."""
    figure = new_figure(width, height)
    figure.suptitle(draw(figure))
    save(figure, path)


def together(draws: list[Draw], path: Path) -> None:
    """One panel of each family, side by side."""
    figure = new_figure(13, 3.9)
    for part, draw in zip(
        figure.subfigures(1, 3, width_ratios=(1.0, 0.85, 1.5)), draws, strict=True
    ):
        part.suptitle(draw(part), weight="bold")
    save(figure, path, dpi=100)


def families(given: argparse.Namespace) -> None:
    """What goes in and what comes out, of each family."""
    draws = {
        "pose": functools.partial(pose, tds_jax.load(given.pose)),
        "forecast": functools.partial(forecast, tds_jax.load(given.forecast), given.fields),
        "voxel": functools.partial(voxel, {"predicted": tds_jax.load(given.voxel)}),
    }
    for (name, draw), size in zip(draws.items(), ((7, 4.2), (6, 4.6), (8, 3.2)), strict=True):
        alone(draw, FOLDER / f"{name}.png", *size)
    together([*draws.values()], FOLDER / "families.png")


def results(given: argparse.Namespace) -> None:
    """What evaluation drew of them, and several answers side by side."""
    shutil.copy(given.methods / "plots" / "test_methods.png", FOLDER / "pose_methods.png")
    shutil.copy(given.ensemble / "plots" / "test_ensemble.png", FOLDER / "forecast_ensemble.png")
    runs = {path.name.removeprefix("voxel_"): tds_jax.load(path) for path in given.answers}
    alone(functools.partial(voxel, runs), FOLDER / "voxel_answers.png", 12, 3.2)


def main() -> None:
    """Runs -> pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    for name in ("pose", "forecast", "fields", "voxel", "methods", "ensemble"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--answers", type=Path, nargs="+")
    given = parser.parse_args()
    asked = (
        (families, (given.pose, given.forecast, given.fields, given.voxel)),
        (results, (given.methods, given.ensemble, given.answers)),
    )
    if not any(all(needs) for _, needs in asked):
        parser.error("give all of the first command's arguments, of the second's, or of both")
    for make, needs in asked:
        if all(needs):
            make(given)
    for path in sorted(FOLDER.glob("*.png")):
        print(f"written: {path.name}, {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
