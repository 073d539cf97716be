import subprocess
import sys
from pathlib import Path

import numpy as np

from tds_jax.data.pipeline import Loader
from tests.data.sources import Numbers

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from tds_jax.data.workers import leave_out_jax
leave_out_jax()

def main():
    import jax
    import numpy as np
    from tds_jax.data.pipeline import Loader
    from tests.data.sources import Numbers
    loader = Loader(Numbers(9), micro_batch=4, seed=3, train=True, workers=1, threads=0, prefetch=1)
    batch = next(loader.train_batches(6))
    np.savez(sys.argv[1], **batch)
    loader.close()

if __name__ == "__main__":
    main()
"""


def test_workers_without_jax_load_the_same_batch(tmp_path):
    program, result = tmp_path / "program.py", tmp_path / "batch.npz"
    program.write_text(PROGRAM.format(root=str(ROOT)))
    subprocess.run([sys.executable, program, result], check=True)
    found = dict(np.load(result))
    expected = next(
        Loader(
            Numbers(9), micro_batch=4, seed=3, train=True, workers=0, threads=0, prefetch=1
        ).train_batches(6)
    )
    assert not found.pop("jax").any()
    expected = {name: leaf for name, leaf in expected.items() if name != "jax"}
    assert found.keys() == expected.keys()
    for name in found:
        if name != "backend":
            np.testing.assert_array_equal(found[name], expected[name])


def test_what_workers_unpickle_imports_neither_jax_nor_grain():
    code = (
        "import sys, tds_jax.pose.windows, tds_jax.data.statistics, tds_jax.data.workers; "
        "print({'jax', 'grain', 'flax'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == "set()\n", found.stderr
