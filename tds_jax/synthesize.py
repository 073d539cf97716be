"""Writes generated data in the real format, for trying things out.

python -m tds_jax.synthesize --task=pose --output=DIR [--users=3 --sessions=7 --seconds=40]
"""

from pathlib import Path

from absl import flags

from tds_jax import cli
from tds_jax.config import require_choice
from tds_jax.engine.logs import progress_bar
from tds_jax.pose.synthetic import Simulation, synthesize

BASE = Simulation()


def main() -> None:
    """Flags -> synthesize."""
    require_choice("--task", flags.FLAGS.task, ("pose",))
    simulation = Simulation(
        users=flags.FLAGS.users,
        sessions=flags.FLAGS.sessions,
        seconds=flags.FLAGS.seconds,
        sample_rate=flags.FLAGS.sample_rate,
        num_channels=flags.FLAGS.num_channels,
        seed=flags.FLAGS.seed,
    )
    with progress_bar("simulating") as progress:
        folder = synthesize(Path(flags.FLAGS.output), simulation, progress)
    print(f"written: {folder}")


if __name__ == "__main__":
    flags.DEFINE_string("task", "pose", "Kind of data: pose.")
    flags.DEFINE_string("output", None, "Folder to create.", required=True)
    flags.DEFINE_integer("users", BASE.users, "Users seen in training.", lower_bound=1)
    flags.DEFINE_integer("sessions", BASE.sessions, "Sessions per user.", lower_bound=3)
    flags.DEFINE_float("seconds", BASE.seconds, "Seconds per session.", lower_bound=5.0)
    flags.DEFINE_float("sample_rate", BASE.sample_rate, "Hz, above 200.", lower_bound=200.0)
    flags.DEFINE_integer("num_channels", BASE.num_channels, "Around the wrist.", lower_bound=1)
    flags.DEFINE_integer("seed", BASE.seed, "The same gives the same bytes.", lower_bound=0)
    cli.launch(main)
