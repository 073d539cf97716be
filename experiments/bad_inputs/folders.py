"""Data folders that cannot be trained on."""

from experiments.bad_inputs.case import train
from experiments.bad_inputs.recordings import (
    all_failed,
    empty,
    good_rows,
    one_left,
    session,
    text,
    truncate,
)

CASES = [
    train("missing folder", "--config.data.path={d}/nowhere",
          says=("data.path={d}/nowhere", "no such folder", "check")),
    train("a file as folder", "--config.data.path={d}/data/s0.hdf5",
          says=("data.path={d}/data/s0.hdf5 is a file", "give the folder")),
    train("empty folder", prepare=empty, says=("data.path={d}/data", "no session files", "give")),
    train("mixed rates", prepare=session(rate=500.0),
          says=("sample rate (Hz)", "s0.hdf5 has 250, s1.hdf5 has 500", "separate folders")),
    train("mixed channel counts", prepare=session(rows=good_rows(1, channels=16)),
          says=("EMG channels", "s0.hdf5 has 8, s1.hdf5 has 16", "separate folders")),
    train("all labels failed", prepare=all_failed,
          says=("none of the 6 sessions is usable", "no row has valid joint angles")),
    train("every session too short", "--config.data.window=3500", "--config.data.eval_window=3500",
          says=("none of the 6 sessions is usable", "3000 samples", "window of 3500", "lower")),
    train("more bad files than allowed", "--config.data.max_bad_sessions=0", prepare=truncate,
          says=("data.max_bad_sessions=0", "s1.hdf5: truncated", "copy or download")),
    train("one session only", prepare=one_left,
          says=("the test split has no session", "data.split_ratio")),
    train("metadata names a missing file",
          prepare=text("data/metadata.csv", "filename,split\ns0,train\ns77,val\n"),
          says=("metadata.csv", "1 of 2 named files", "s77", "remove their rows")),
    train("metadata without a split column", prepare=text("data/metadata.csv", "filename\ns0\n"),
          says=("metadata.csv", "missing column split", "found ['filename']", "add it")),
    train("metadata with an unknown split",
          prepare=text("data/metadata.csv", "filename,split\ns0,dev\n"),
          says=("line 2 has split 'dev'", "train, val, test", "correct it")),
]  # fmt: skip
