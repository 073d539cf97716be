"""Bad input to evaluate, predict, plan and synthesize."""

import shutil

import numpy as np

from experiments.bad_inputs.case import CONFIG, Case, predict
from experiments.bad_inputs.recordings import good_rows, recording, text


def begun(folder):
    """A run that was killed before its first checkpoint."""
    (folder / "run").mkdir()
    for name in ("config.json", "inputs.json"):
        shutil.copy(folder.parent / "trained" / "run" / name, folder / "run")


CASES = [
    Case("evaluate: empty workdir", "evaluate", ("--workdir={d}",),
         ("--workdir={d}", "config.json", "give a folder that train wrote")),
    Case("evaluate: no checkpoint yet", "evaluate", ("--workdir={d}/run",),
         ("--workdir={d}/run", "no checkpoint", "train first"),
         prepare=begun),
    Case("evaluate: unknown split", "evaluate", ("--workdir={d}/../trained/run", "--split=dev"),
         ("--split='dev'", "train, val, test")),
    Case("evaluate: no --workdir", "evaluate", (), ("--workdir is missing", "--help")),
    Case("evaluate: --json nowhere", "evaluate",
         ("--workdir={d}/../trained/run", "--json={d}/no/a.json"),
         ("--json={d}/no/a.json", "folder")),
    predict("missing file", "--input={d}/no.hdf5", "--output={d}/o.hdf5",
            says=("--input={d}/no.hdf5", "no such file")),
    predict("not HDF5", "--input={d}/a.hdf5", "--output={d}/o.hdf5", prepare=text("a.hdf5", "hi"),
            says=("a.hdf5: not an HDF5 file", "replace")),
    predict("wrong channels", "--input={d}/x.hdf5", "--output={d}/o.hdf5",
            prepare=recording(rows=good_rows(9, channels=4)),
            says=("x.hdf5 has 4 EMG channels", "8", "give")),
    predict("wrong rate", "--input={d}/x.hdf5", "--output={d}/o.hdf5",
            prepare=recording(rate=500.0), says=("x.hdf5 has 500", "250", "resample")),
    predict("too short", "--input={d}/x.hdf5", "--output={d}/o.hdf5",
            prepare=recording(rows=good_rows(9, rows=5)),
            says=("x.hdf5 has 5 samples", "receptive field", "longer")),
    predict("no emg field", "--input={d}/x.hdf5", "--output={d}/o.hdf5",
            prepare=recording(rows=np.zeros(900, [("time", "<f8")])),
            says=("x.hdf5: field 'emg' is missing", "['time']")),
    predict("other group", "--input={d}/x.hdf5", "--output={d}/o.hdf5",
            prepare=recording(group="mine"), says=("group 'emg2pose' is missing", "['mine']")),
    predict("output equals input", "--input={d}/x.hdf5", "--output={d}/x.hdf5",
            prepare=recording(), says=("--output={d}/x.hdf5 is the input", "another")),
    predict("output under a file", "--input={d}/x.hdf5", "--output={d}/x.hdf5/o.hdf5",
            prepare=recording(), says=("--output={d}/x.hdf5/o.hdf5", "folder")),
    predict("folder to a file", "--input={d}/data", "--output={d}/x.hdf5",
            prepare=recording(), says=("--output={d}/x.hdf5", "another folder")),
    predict("folder without recordings", "--input={d}", "--output={d}/o",
            says=("--input={d} holds no .hdf5 or .h5 file",)),
    Case("plan: unknown remat", "plan", (f"--config={CONFIG}", "--config.memory.remat=some"),
         ("memory.remat='some'", "none, dots, names, full")),
    Case("synthesize: too few sessions", "synthesize",
         ("--task=pose", "--output={d}/o", "--sessions=2"),
         ("sessions=2", "3")),
    Case("synthesize: folder in use", "synthesize", ("--task=pose", "--output={d}/data",),
         ("{d}/data exists", "another folder")),
]  # fmt: skip
