"""Which folds there are to train on, one after the other."""

from tds_jax.config import Config
from tds_jax.errors import UserError
from tds_jax.pose.folds import LEAST, USER, parse
from tds_jax.pose.task import PoseTask


def folds(config: Config, count: int) -> list[str]:
    """Values of data.fold: of so many parts, or with count 0 of every user of the data."""
    if count:
        parse(f"1/{count}")
        return [f"{number}/{count}" for number in range(1, count + 1)]
    users = sorted(set(PoseTask(config).table.group_of("user")) - {""})
    if len(users) < LEAST:
        raise UserError(
            f"--leave_one_user_out needs {LEAST} users or more, the data name {len(users)}; give "
            "metadata.csv a column user"
        )
    return [f"{USER}{user}" for user in users]
