"""LZF, the compression of binary_compressed .pcd files, undone."""

LITERALS = 32  # first bytes below say that so many bytes and one follow as they are
LONG = 7  # a length of so much goes on in the next byte


def decompress(data: bytes) -> bytes:
    """The bytes behind a whole LZF stream. ValueError for one that is cut off or wrong.

    A first byte below 32 is a number of literal bytes less one. Any other holds the length of a
    copy, less two, in its upper three bits, and in the others and the byte at the end how far back
    it begins, less one; a copy may reach into what it is itself writing.
    """
    out, i = bytearray(), 0
    try:
        while i < len(data):
            first = data[i]
            i += 1
            if first < LITERALS:
                out += data[i : i + first + 1]
                i += first + 1
                continue
            length = first >> 5
            if length == LONG:
                length += data[i]
                i += 1
            back = ((first & 31) << 8 | data[i]) + 1
            i += 1
            out += _copy(out, back, length + 2)
    except IndexError as error:
        raise ValueError("the compressed points end too early") from error
    if i > len(data):
        raise ValueError("the compressed points end too early")
    return bytes(out)


def _copy(out: bytearray, back: int, length: int) -> bytes:
    if back > len(out):
        raise ValueError(f"a copy begins {back} bytes back, after {len(out)} bytes")
    source = bytes(out[len(out) - back :][:length])
    return (source * -(-length // len(source)))[:length]
