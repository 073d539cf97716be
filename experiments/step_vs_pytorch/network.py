"""The network's sizes, as configs/emg2pose_tracking.py has them, and its arithmetic."""

from configs import emg2pose_tracking

CONFIG = emg2pose_tracking.get_config()
MODEL = CONFIG.model
TIME, STEPS, JOINTS, CHANNELS = CONFIG.data.window, 250, 20, 16
GROUPS, WIDE = MODEL.groups[0], MODEL.groups[0] * MODEL.widths[0]  # the same in every stage
FEATURES, HIDDEN = MODEL.out_features, MODEL.hidden
SQUARE = 2048  # rows of the product that says how fast products can be


def stages():
    """(kernel, stride, kernel of its TDS blocks, how many) of each stage."""
    return zip(
        MODEL.conv_kernels, MODEL.conv_strides, MODEL.tds_kernels, MODEL.tds_blocks, strict=True
    )


def multiplications(batch):
    """Of one forward pass of encoder and decoder."""
    length, size, encoder = TIME, CHANNELS, 0
    for kernel, stride, tds, blocks in stages():
        length = (length - kernel) // stride + 1
        encoder += length * kernel * size * WIDE
        size = WIDE
        for _ in range(blocks):
            length -= tds - 1
            encoder += length * (tds * GROUPS * WIDE + 2 * WIDE * WIDE)
    encoder += length * WIDE * FEATURES
    decoder = STEPS * ((FEATURES + JOINTS + 3 * HIDDEN) * 4 * HIDDEN + HIDDEN * JOINTS)
    return batch * encoder, batch * decoder
