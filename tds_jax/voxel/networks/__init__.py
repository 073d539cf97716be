"""The networks: autoencoders, U-Net, what they are made of, and PyTorch's names for them.

Here: arrays in, arrays out. Never: files, losses, a config object.
"""
