"""From a saliency map to a picture: normalise, colour, lay over the photo, put panels in a grid. All NumPy.

A map is (h, w), or (c, h, w), (1, c, h, w) or (h, w, c) with 1 or 3 channels, which are summed. A picture is
RGB (h, w, 3) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from symgrad.saliency import font
from symgrad.saliency.png import write_png

# Colours at equally spaced values, interpolated between. Zero is the middle of a diverging table.
TABLES = {
    "diverging": ((0.02, 0.19, 0.38), (0.13, 0.40, 0.67), (0.57, 0.77, 0.87), (1.00, 1.00, 1.00),
                  (0.96, 0.65, 0.51), (0.70, 0.09, 0.17), (0.40, 0.00, 0.12)),
    "grey": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def normalise(heat: Any, *, percentile: float = 99.5) -> np.ndarray:
    """The map (h, w) scaled to [-1, 1]: zero stays zero, the percentile of |heat| becomes 1, the rest is cut.

    A map of zeros stays zeros. ValueError if the map holds NaN or Inf.
    """
    flat = flat_map(heat)
    if not np.isfinite(flat).all():
        bad = int((~np.isfinite(flat)).sum())
        raise ValueError(f"the map holds {bad} values that are NaN or Inf of {flat.size}")
    size = np.percentile(np.abs(flat), percentile) or np.abs(flat).max()
    return np.clip(flat / size, -1, 1) if size else flat


def flat_map(heat: Any) -> np.ndarray:
    """The map as (h, w) float64, channels summed."""
    heat = _without_batch(np.asarray(heat, dtype=np.float64), "map")
    return heat if heat.ndim == 2 else heat.sum(axis=_channel_axis(heat.shape))


def colours(values: np.ndarray, table: str = "diverging") -> np.ndarray:
    """RGB of values in [-1, 1]: blue below zero, white at zero, red above."""
    stops = np.array(TABLES[table])
    place = (np.clip(values, -1, 1) + 1) / 2 * (len(stops) - 1)
    return np.stack([np.interp(place, np.arange(len(stops)), stops[:, i]) for i in range(3)], axis=-1)


def picture(image: Any) -> np.ndarray:
    """RGB (h, w, 3) in [0, 1] of an image in any of the layouts above.

    uint8 is divided by 255; floats outside [0, 1] are scaled from their own range, so a normalised input of a
    model can be given as it is.
    """
    image = np.asarray(image)
    values = _without_batch(image.astype(np.float64) / (255 if image.dtype == np.uint8 else 1), "image")
    values = values[None] if values.ndim == 2 else values
    values = np.moveaxis(values, _channel_axis(values.shape), -1)
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        values = (values - low) / ((high - low) or 1)
    return np.broadcast_to(values, values.shape[:2] + (3,)).copy()


def overlay(image: Any, heat: Any, *, strength: float = 0.85, percentile: float = 99.5) -> np.ndarray:
    """The photo in grey with the map in colour on it, more opaque where the map is larger.

    The map is interpolated to the size of the photo.
    """
    photo = picture(image)
    values = resize(normalise(heat, percentile=percentile), photo.shape[:2])
    grey = photo @ np.array([0.299, 0.587, 0.114])                    # luma weights of ITU-R BT.601
    opacity = strength * np.sqrt(np.abs(values))[..., None]           # the root keeps weak parts visible
    return (1 - opacity) * grey[..., None] + opacity * colours(np.sign(values) * (0.3 + 0.5 * np.abs(values)))


def resize(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An array (h, w) or (h, w, c) at another size: averaged where smaller, interpolated where larger."""
    for axis in (0, 1):
        if values.shape[axis] != size[axis]:
            make = _averaging if values.shape[axis] > size[axis] else _interpolation
            matrix = make(values.shape[axis], size[axis])
            values = np.moveaxis(np.tensordot(matrix, values, (1, axis)), 0, axis)
    return values


def grid(rows: Sequence[Sequence[Any]], *, titles: Sequence[str] = (), labels: Sequence[str] = (),
         scale: int = 1, gap: int = 4) -> np.ndarray:
    """One RGB picture of pictures in rows, with a title over each column and a label left of each row.

    Pictures are RGB (h, w, 3) in [0, 1], each enlarged `scale` times; columns are as wide as their widest.
    """
    rows = [[np.kron(np.asarray(p, float), np.ones((scale, scale, 1))) for p in row] for row in rows]
    n_columns = max(len(row) for row in rows)
    widths = [max([p.shape[1] for row in rows for p in row[k:k + 1]]
                  + [font.text_width(title) for title in titles[k:k + 1]]) for k in range(n_columns)]
    heights = [max([p.shape[0] for p in row] + [font.HEIGHT]) for row in rows]
    margin = max((font.text_width(label) + gap for label in labels), default=0)
    top = font.HEIGHT + gap if len(titles) else 0
    lefts = _starts(gap + margin, widths, gap)
    tops = _starts(gap + top, heights, gap)
    canvas = np.ones((tops[-1], lefts[-1], 3))
    for k, title in enumerate(titles):
        font.draw(canvas, title, lefts[k], gap)
    for label, y, height in zip(labels, tops, heights):
        font.draw(canvas, label, gap, y + (height - font.HEIGHT) // 2)
    for row, y in zip(rows, tops):
        for p, x in zip(row, lefts):
            canvas[y:y + p.shape[0], x:x + p.shape[1]] = p
    return canvas


def save_image(heat: Any, path: str | Path, image: Any = None, *, percentile: float = 99.5) -> None:
    """Writes a PNG of the map in colours, or of the map over the photo when `image` is given."""
    save_picture(_drawn(heat, image, percentile), path)


def save_picture(rgb: np.ndarray, path: str | Path) -> None:
    """Writes RGB (h, w, 3) in [0, 1] as a PNG."""
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"pictures are written as .png, found {str(path)!r}")
    write_png(to_bytes(rgb), path)


def to_bytes(rgb: np.ndarray) -> np.ndarray:
    """uint8 from values in [0, 1]."""
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def show(heat: Any, image: Any = None, *, title: str | None = None, percentile: float = 99.5) -> None:
    """Shows the map in a window or notebook. Needs matplotlib (symgrad[image])."""
    from matplotlib import pyplot  # optional dependency
    figure, axes = pyplot.subplots()
    axes.imshow(_drawn(heat, image, percentile), interpolation="nearest")
    axes.set_axis_off()
    if title:
        axes.set_title(title)
    pyplot.show()


def _drawn(heat: Any, image: Any, percentile: float) -> np.ndarray:
    if image is None:
        return colours(normalise(heat, percentile=percentile))
    return overlay(image, heat, percentile=percentile)


def _starts(first: int, sizes: Sequence[int], gap: int) -> list[int]:
    """Where each of the sizes starts, and where the canvas ends."""
    starts = [first]
    for size in sizes:
        starts.append(starts[-1] + size + gap)
    return starts


def _without_batch(values: np.ndarray, what: str) -> np.ndarray:
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim not in (2, 3) or values.size == 0:
        raise ValueError(f"one {what} is (h, w), (c, h, w), (1, c, h, w) or (h, w, c), found {values.shape}")
    return values


def _channel_axis(shape: tuple[int, ...]) -> int:
    """0 or 2: the axis with 1 or 3 channels, the first where both could be."""
    if shape[0] in (1, 3):
        return 0
    if shape[2] in (1, 3):
        return 2
    raise ValueError(f"no axis of {shape} looks like 1 or 3 channels")


def _averaging(n_in: int, n_out: int) -> np.ndarray:
    """The (n_out, n_in) matrix of means over equal parts, with pixels on a border shared by overlap."""
    edges = np.arange(n_out + 1) * (n_in / n_out)
    pixel = np.arange(n_in)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.clip(overlap, 0, None) * (n_out / n_in)


def _interpolation(n_in: int, n_out: int) -> np.ndarray:
    """The (n_out, n_in) matrix of linear interpolation with aligned pixel edges."""
    centre = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
    return np.clip(1 - np.abs(centre[:, None] - np.arange(n_in)), 0, 1)
