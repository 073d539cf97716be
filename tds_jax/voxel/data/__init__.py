"""Volumes and clouds: reading, voxelising, pairing, resizing, generating.

Here: numpy and files. Never: jax, a network, a loss.
"""
