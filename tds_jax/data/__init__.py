"""Files and what comes out of them: the only room that imports h5py and grain.

Here: lazily opened files, indices, windows, batches, statistics, whole files. Never: jax, a model.
"""
