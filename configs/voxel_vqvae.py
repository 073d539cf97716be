"""The autoencoder of voxel_ultra.py with a codebook: latents are entries of a table of 512."""

from ml_collections import ConfigDict

from configs import voxel_ultra


def get_config() -> ConfigDict:
    """Codes follow their latents as running means; dead ones begin anew."""
    config = voxel_ultra.get_config()
    config.model.name = "vqvae"
    config.model.codes = 512
    return config
