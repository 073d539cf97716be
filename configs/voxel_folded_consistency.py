"""The diffusion of configs/voxel_folded.py distilled: its answer in one step, not eleven.

    python -m tds_jax.train --config=configs/voxel_folded_consistency.py \\
        [--config.model.teacher=DIR --config.model.direct=DIR]

2 CPU cores, about 7 minutes of CPU time, most of it compiling, a look at validation and 11
evaluations of the teacher at the end; predicted 338 MiB on the device, measured 1.48 GiB on the
host. Generated streets, one seed, 95 % intervals over 7 unseen streets: IoU 0.451 (0.424 to 0.482)
and Chamfer 1.25 m, its teacher 0.447 and 1.28 m, `linear` 0.415 (lower by 0.027 to 0.048) and 1.65
m (0.33 to 0.46 more), `direct` 0.449 and 1.28 m; pattern JSD 0.0863, not told apart from that of
`direct`, the teacher's is 0.0804. Of four sweeps, --config.data.sweeps=4: three seeds: IoU 0.517 ±
0.011, its teacher 0.509 ± 0.013, `direct` 0.517 ± 0.012, `linear` 0.456; pattern JSD 0.0676 ±
0.0038, `direct` 0.0706 ± 0.0056, told apart in two of three. More steps made a student of a teacher
without the Dice loss worse: 0.387 in two, 0.429 in one.
"""

from ml_collections import ConfigDict

from configs import voxel_folded


def get_config() -> ConfigDict:
    """Train voxel_direct.py and voxel_folded.py first; see there for their workdirs."""
    config = voxel_folded.get_config()
    config.model.name = "consistency"
    config.model.teacher = "runs/voxel_folded"
    # Of temperature 0 there is no noise for a second step to take away: more of them only fill.
    config.model.jumps = (1,)
    config.optim.steps = 80
    config.optim.learning_rate = 2e-4
    config.optim.weight_decay = 0.0
    config.eval.every = 80
    return config
