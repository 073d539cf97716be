"""What training goes on with, exit 0, after a warning with a count; and what it then lacks."""

import numpy as np

from experiments.bad_inputs.case import predict, train
from experiments.bad_inputs.recordings import (
    good_rows,
    no_labels,
    put,
    session,
    text,
    truncate,
    without,
)

CASES = [
    train("truncated file", prepare=truncate, code=0, says=("s1.hdf5: truncated HDF5 file",)),
    train("not HDF5", prepare=text("data/s1.hdf5", "hi"), code=0, says=("s1.hdf5: not an HDF5",)),
    train("missing group", prepare=session(group="mine"), code=0,
          says=("s1.hdf5: group 'emg2pose' is missing", "set data.group")),
    train("missing dataset", prepare=session(dataset="series"), code=0,
          says=("s1.hdf5: dataset emg2pose/timeseries is missing", "['series']")),
    train("missing field", prepare=without("joint_angles"), code=0,
          says=("s1.hdf5: field 'joint_angles' is missing", "rename")),
    train("one session too short", prepare=session(rows=good_rows(1, rows=300)), code=0,
          says=("s1.hdf5: 300 samples", "window of 400")),
    train("time runs backwards", prepare=put("time", 0.0, 2000), code=0,
          says=("s1.hdf5: time runs backwards at row 2000", "sort")),
    train("NaN and Inf in EMG", prepare=put("emg", np.nan, slice(100, 110), 2), code=0,
          says=("s1.hdf5: 10 of 3000 rows have NaN or Inf in emg",)),
    train("NaN in labels", prepare=put("joint_angles", np.inf, slice(100, 107), 2), code=0,
          says=("s1.hdf5: 0 of 3000", "7 in joint_angles", "weight 0")),
    train("labels failed in one session", prepare=put("joint_angles", 0, slice(None)), code=0,
          says=("s1.hdf5: no row has valid joint angles", "leave the file out")),
    train("files that metadata does not name", code=0,
          prepare=text("data/metadata.csv",
                       "filename,split\ns0,train\ns1,train\ns2,val\ns3,test\n"),
          says=("2 files are not in metadata.csv", "s4.hdf5", "add rows")),
    train("no test split", code=2,
          prepare=text("data/metadata.csv", "filename,split\ns0,train\ns2,val\n"),
          says=("the test split has no session", "metadata.csv")),
    predict("recording without labels", "--input={d}/emg.hdf5", "--output={d}/o.hdf5",
            prepare=no_labels, code=0, says=()),
]  # fmt: skip
