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


def linear(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def timed(name, a, b, time):
    """A residual block of the latent U-Net."""
    found = norm(f"{name}.in_layers.0", a) | conv(f"{name}.in_layers.2", a, b)
    found |= linear(f"{name}.emb_layers.1", time, 2 * b) | norm(f"{name}.out_layers.0", b)
    found |= conv(f"{name}.out_layers.3", b, b)
    return found | (conv(f"{name}.skip_connection", a, b, 1) if a != b else {})


def linear_attention(name, c):
    found = norm(f"{name}.norm", c) | conv(f"{name}.to_qkv", c, 3 * c, 1)
    return found | conv(f"{name}.to_out.0", c, c, 1) | norm(f"{name}.to_out.1", c)


def unet(inputs=8, outputs=4, width=32, multipliers=(1, 2, 3)):
    """The latent U-Net: one residual block per level going down, two going up."""
    time, last = 4 * width, len(multipliers) - 1
    found = linear("time_embed.0", width, time) | linear("time_embed.2", time, time)
    found |= conv("input_blocks.0.0", inputs, width)
    skips, c, n = [width], width, 1
    for i, m in enumerate(multipliers):
        found |= timed(f"input_blocks.{n}.0", c, width * m, time)
        c, n = width * m, n + 1
        skips.append(c)
        if i < last:
            found |= conv(f"input_blocks.{n}.0.op", c, c)
            n += 1
            skips.append(c)
    found |= timed("middle_block.0", c, c, time) | linear_attention("middle_block.1", c)
    found |= timed("middle_block.2", c, c, time)
    for n in range(2 * len(multipliers)):
        after = width * multipliers[last - n // 2]
        found |= timed(f"output_blocks.{n}.0", c + skips.pop(), after, time)
        c = after
        if n % 2 and n < 2 * last:
            found |= conv(f"output_blocks.{n}.1.conv", c, c)
    return found | norm("out.0", c) | conv("out.2", c, outputs)
