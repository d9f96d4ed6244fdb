"""Reads and writes .safetensors files: by the safetensors package where it is installed, else by the format.

The format: a little-endian uint64 n, then n bytes of JSON {name: {dtype, shape, data_offsets}}, then the
arrays, little-endian and row-major, at those offsets. It holds no code, so reading a file cannot run any.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

CODES = {"F64": "float64", "F32": "float32", "F16": "float16", "I64": "int64", "I32": "int32", "I16": "int16",
         "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool"}
NAMES = {name: code for code, name in CODES.items()}
LONGEST_HEADER = 100_000_000                          # bytes; the limit the safetensors package sets


def write(arrays: dict[str, np.ndarray], path: str | Path) -> None:
    """Writes named arrays."""
    arrays = {name: np.array(value, order="C") for name, value in arrays.items()}
    try:
        from safetensors.numpy import save_file  # optional dependency
    except ImportError:
        Path(path).write_bytes(encode(arrays))
    else:
        save_file(arrays, str(path))


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The named arrays of a file. ValueError if it is damaged or holds a type NumPy lacks."""
    try:
        from safetensors.numpy import load_file  # optional dependency
    except ImportError:
        return decode(Path(path).read_bytes(), str(path))
    return load_file(str(path))


def encode(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of a file with these arrays."""
    header, blobs, offset = {}, [], 0
    for name, value in arrays.items():
        blob = value.astype(value.dtype.newbyteorder("<")).tobytes()
        header[name] = {"dtype": NAMES[value.dtype.name], "shape": list(value.shape),
                        "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)                   # the arrays start on a multiple of 8
    return struct.pack("<Q", len(text)) + text + b"".join(blobs)


def decode(data: bytes, where: str) -> dict[str, np.ndarray]:
    """The named arrays in the bytes of a file."""
    if len(data) < 8:
        raise ValueError(f"{where} is too short to be a safetensors file")
    length = struct.unpack("<Q", data[:8])[0]
    if length > min(LONGEST_HEADER, len(data) - 8):
        raise ValueError(f"{where} is cut off or no safetensors file: its header would have {length} bytes")
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: _array(entry, data[8 + length:], f"{name} in {where}") for name, entry in header.items()}


def _array(entry: dict, body: bytes, where: str) -> np.ndarray:
    if entry["dtype"] not in CODES:
        raise ValueError(f"{where} has type {entry['dtype']}; known are {', '.join(CODES)}")
    dtype, shape, (start, stop) = np.dtype(CODES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
    if not 0 <= start <= stop <= len(body) or stop - start != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError(f"{where}: bytes {start} to {stop} do not hold {dtype} {tuple(shape)}")
    return np.frombuffer(body[start:stop], dtype.newbyteorder("<")).astype(dtype).reshape(shape)
