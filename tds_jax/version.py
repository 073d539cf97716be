"""Which tds_jax this is; imports nothing, so that anything may import it."""

__version__ = "0.1.0"
