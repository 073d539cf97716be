"""The smallest VAE of radar volumes (694,788 parameters), on generated streets of 1 m voxels."""

from ml_collections import ConfigDict

from configs import voxel_base


def get_config() -> ConfigDict:
    """Grids of (8, 32, 32): an eighth of voxel_base's, so that a CPU learns them in minutes."""
    config = voxel_base.get_config()
    config.data.synthetic_shape = (8, 32, 32)
    return config
