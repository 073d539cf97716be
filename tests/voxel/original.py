"""State dicts of the original autoencoders, {tensor: shape} in their order, from the description.

Blocks list their convolutions first, then their normalisations, then the skip.
"""


def conv(name, inputs, outputs, size=3):
    return {f"{name}.weight": (outputs, inputs, *(size,) * 3), f"{name}.bias": (outputs,)}


def norm(name, channels):
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def res(name, a, b):
    convs = conv(f"{name}.conv1", a, b) | conv(f"{name}.conv2", b, b)
    norms = norm(f"{name}.norm1", a) | norm(f"{name}.norm2", b)
    return convs | norms | (conv(f"{name}.skip", a, b, 1) if a != b else {})


def attention(name, c):
    return (
        norm(f"{name}.norm", c) | conv(f"{name}.qkv", c, 3 * c, 1) | conv(f"{name}.proj", c, c, 1)
    )


def middle(coder, c, attended):
    between = attention(f"{coder}.mid_block.1", c) if attended else {}
    return res(f"{coder}.mid_block.0", c, c) | between | res(f"{coder}.mid_block.2", c, c)


def level(name, widths, attended, resampled):
    """Residual blocks a -> b of `widths`, then attention, then a resampling convolution."""
    found = {}
    for n, (a, b) in enumerate(widths):
        found |= res(f"{name}.{n}", a, b)
    n, last = len(widths), widths[-1][1]
    if attended:
        found |= attention(f"{name}.{n}", last)
    return found | (conv(f"{name}.{n + attended}.conv", last, last) if resampled else {})


def encoder(base, multipliers, outputs, attended, channels=4):
    """One residual block per level."""
    found, width, last = conv("encoder.conv_in", channels, base), base, len(multipliers) - 1
    for i, m in enumerate(multipliers):
        widths = [(width, base * m)]
        found |= level(f"encoder.down_blocks.{i}", widths, attended and i == last, i < last)
        width = base * m
    found |= middle("encoder", width, attended)
    return found | norm("encoder.norm_out", width) | conv("encoder.conv_out", width, outputs)


def decoder(base, multipliers, attended, channels=4):
    """Two residual blocks per level; multipliers from the inside out."""
    width, last = base * multipliers[0], len(multipliers) - 1
    found = conv("decoder.conv_in", 4, width) | middle("decoder", width, attended)
    for i, m in enumerate(multipliers):
        widths = [(width, base * m), (base * m, base * m)]
        found |= level(f"decoder.up_blocks.{i}", widths, attended and i == 0, i < last)
        width = base * m
    return found | norm("decoder.norm_out", width) | conv("decoder.conv_out", width, channels)


def vae(base, multipliers, attended):
    points = conv("quant_conv", 4, 4, 1) | conv("post_quant_conv", 4, 4, 1)
    coders = encoder(base, multipliers, 8, attended) | decoder(base, multipliers[::-1], attended)
    return coders | points


def vqvae(base, multipliers, codes):
    names = ("cluster_size", "embed_avg", "embedding.weight")
    sizes = ((codes,), (codes, 4), (codes, 4))
    book = {f"quantizer.{name}": size for name, size in zip(names, sizes, strict=True)}
    return encoder(base, multipliers, 4, True) | book | decoder(base, multipliers[::-1], True)
