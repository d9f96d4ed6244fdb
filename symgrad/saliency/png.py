"""Pictures in and out: an own PNG writer and a reader for plain PNGs; Pillow, where installed, reads all.

Source of the format: the PNG specification (W3C, 2003), sections 5, 9 and 11.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}                    # colour type -> samples per pixel
COLOUR_TYPES = {1: 0, 3: 2, 4: 6}


def write_png(pixels: np.ndarray, path: str | Path) -> None:
    """Writes uint8 pixels (h, w), (h, w, 3) or (h, w, 4) to a file."""
    Path(path).write_bytes(encode_png(pixels))


def encode_png(pixels: np.ndarray) -> bytes:
    """The bytes of a PNG file: grey (h, w), RGB (h, w, 3) or RGBA (h, w, 4), uint8."""
    pixels = np.asarray(pixels)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    fits = pixels.ndim == 3 and pixels.shape[2] in COLOUR_TYPES and pixels.size
    if pixels.dtype != np.uint8 or not fits:
        raise ValueError("a PNG needs uint8 pixels (h, w), (h, w, 3) or (h, w, 4), "
                         f"found {pixels.dtype} {pixels.shape}")
    height, width, channels = pixels.shape
    rows = pixels.reshape(height, width * channels)
    filter_0 = np.zeros((height, 1), np.uint8)        # "none": the bytes of the row follow as they are
    unfiltered = np.concatenate([filter_0, rows], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in (
        (b"IHDR", header), (b"IDAT", zlib.compress(unfiltered.tobytes(), 9)), (b"IEND", b"")))


def read_image(path: str | Path) -> np.ndarray:
    """A picture as float32 RGB (h, w, 3) in [0, 1]. Transparent parts are laid on white.

    Without Pillow only 8-bit, non-interlaced grey, RGB and RGBA PNGs can be read.
    """
    try:
        from PIL import Image  # optional dependency
    except ImportError:
        return _flattened(decode_png(Path(path).read_bytes(), str(path)))
    with Image.open(path) as picture:
        return _flattened(np.asarray(picture.convert("RGBA")))


def decode_png(data: bytes, where: str = "data") -> np.ndarray:
    """uint8 pixels (h, w, channels) of an 8-bit, non-interlaced grey, RGB or RGBA PNG; else a ValueError."""
    if not data.startswith(SIGNATURE):
        raise ValueError(f"{where} is not a PNG file; install symgrad[image] to read other formats")
    chunks = list(_chunks(data, where))
    width, height, depth, colour_type, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if depth != 8 or interlaced or colour_type not in CHANNELS:
        raise ValueError(f"{where} is a PNG of depth {depth}, colour type {colour_type}, interlacing "
                         f"{interlaced}; without Pillow only plain 8-bit grey, RGB and RGBA are read: "
                         "install symgrad[image]")
    raw = zlib.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"))
    channels = CHANNELS[colour_type]
    rows = np.frombuffer(raw, np.uint8).reshape(height, 1 + width * channels)
    return _unfiltered(rows, channels).reshape(height, width, channels)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _chunks(data: bytes, where: str):
    place = len(SIGNATURE)
    while place < len(data):
        length, = struct.unpack_from(">I", data, place)
        kind, content = data[place + 4:place + 8], data[place + 8:place + 8 + length]
        if data[place + 8 + length:place + 12 + length] != struct.pack(">I", zlib.crc32(kind + content)):
            raise ValueError(f"{where} is damaged: checksum of chunk {kind!r} at byte {place}")
        yield kind, content
        place += 12 + length


def _unfiltered(rows: np.ndarray, step: int) -> np.ndarray:
    """The pixels of filtered rows: each byte was stored as a difference to a guess from its neighbours."""
    above = np.zeros(rows.shape[1] - 1, np.uint8)
    result = np.empty((len(rows), rows.shape[1] - 1), np.uint8)
    for y, row in enumerate(rows):
        result[y] = above = _undo(row[0], row[1:], above, step)
    return result


def _undo(kind: int, row: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    if kind == 0:
        return row.copy()
    if kind == 1:
        return np.add.accumulate(row.reshape(-1, step), axis=0, dtype=np.uint8).reshape(-1)
    if kind == 2:
        return row + above
    if kind not in (3, 4):
        raise ValueError(f"unknown PNG filter {kind}")
    guess = _average if kind == 3 else _paeth
    out, up = [0] * step + row.tolist(), [0] * step + above.tolist()
    for x in range(step, len(out)):
        out[x] = (out[x] + guess(out[x - step], up[x], up[x - step])) & 255
    return np.array(out[step:], np.uint8)


def _average(left: int, up: int, corner: int) -> int:
    return (left + up) // 2


def _paeth(left: int, up: int, corner: int) -> int:
    """The neighbour nearest to left + up - corner."""
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if to_left <= to_up and to_left <= to_corner:
        return left
    return up if to_up <= to_corner else corner


def _flattened(pixels: np.ndarray) -> np.ndarray:
    """float32 RGB in [0, 1] from uint8 grey, grey + alpha, RGB or RGBA."""
    values = pixels.astype(np.float32) / 255
    channels = values.shape[2]
    colour = values[..., :channels - 1] if channels in (2, 4) else values
    if channels in (2, 4):
        alpha = values[..., -1:]
        colour = colour * alpha + (1 - alpha)
    return np.broadcast_to(colour, values.shape[:2] + (3,)).copy()
