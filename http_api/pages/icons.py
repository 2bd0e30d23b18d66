"""Draw the app's icons, as PNG files: ``python -m http_api.pages.icons`` writes ``browser/icons/``.

The picture is that of ``browser/favicon.svg``: two chevrons on asphalt. Every shape is convex, so a line of pixels is one stretch
of each; that is all the geometry there is, and no drawing library is needed.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from http_api.pages.serving import BROWSER

FOLDER: Final = BROWSER / "icons"
LINES_PER_PIXEL: Final = 4
"""How finely edges are smoothed from top to bottom; along a line they are exact."""

Colour = tuple[int, int, int]
Point = tuple[float, float]

ASPHALT: Final = (0x14, 0x18, 0x1F)
KERB: Final = (0xFF, 0x7A, 0x33)
WHITE: Final = (0xFF, 0xFF, 0xFF)
LEFT: Final = ((6.0, 8.0), (12.0, 8.0), (19.0, 16.0), (12.0, 24.0), (6.0, 24.0), (13.0, 16.0))
RIGHT: Final = ((16.0, 8.0), (21.0, 8.0), (28.0, 16.0), (21.0, 24.0), (16.0, 24.0), (23.0, 16.0))
"""In a square of 32, as in the SVG: the last point is the notch."""
VIEW: Final = 32.0


@dataclass(frozen=True)
class Icon:
    """``corner``: the radius of the ground's corners, of 32; ``scale``: of the chevrons; no ``ground``: only they are drawn."""

    name: str
    pixels: int
    ground: Colour | None = ASPHALT
    corner: float = 7.0
    scale: float = 1.0
    colours: tuple[Colour, Colour] = (KERB, WHITE)


ICONS: Final = (
    Icon("icon-192.png", 192),
    Icon("icon-512.png", 512),
    # Cut to any shape by the phone: full to the edge, and the picture within the inner 80 percent.
    Icon("maskable-192.png", 192, corner=0.0, scale=0.72),
    Icon("maskable-512.png", 512, corner=0.0, scale=0.72),
    Icon("apple-touch.png", 180, corner=0.0, scale=0.85),
    # The small sign in a status bar: only its shape counts.
    Icon("badge-96.png", 96, ground=None, scale=1.2, colours=(WHITE, WHITE)),
)


def png(icon: Icon) -> bytes:
    """Return the icon as a PNG file with transparency."""
    rows = b"".join(b"\0" + row for row in _rows(icon))
    header = struct.pack(">IIBBBBB", icon.pixels, icon.pixels, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _rows(icon: Icon) -> Iterator[bytes]:
    """Yield the lines of pixels from the top, four bytes each pixel."""
    layers = [
        (part, colour) for shape, colour in zip((LEFT, RIGHT), icon.colours, strict=True) for part in _convex(shape)
    ]
    unit = icon.pixels / VIEW
    for y in range(icon.pixels):
        coverage = [[0.0] * icon.pixels for _ in range(1 + len(layers))]
        for line in range(LINES_PER_PIXEL):
            at = (y + (line + 0.5) / LINES_PER_PIXEL) / unit
            if icon.ground is not None:
                _cover(coverage[0], _ground(at, icon.corner), unit)
            for index, (part, _) in enumerate(layers, 1):
                _cover(coverage[index], _stretch(part, at, icon.scale), unit)
        yield b"".join(_pixel(icon, layers, [layer[x] for layer in coverage]) for x in range(icon.pixels))


def _pixel(icon: Icon, layers: Sequence[tuple[Sequence[Point], Colour]], covered: Sequence[float]) -> bytes:
    alpha = min(1.0, sum(covered)) if icon.ground is None else covered[0]
    colour: tuple[float, ...] = icon.ground or icon.colours[0]
    for share, (_, own) in zip(covered[1:], layers, strict=True):
        colour = tuple(old + (new - old) * share for old, new in zip(colour, own, strict=True))
    return bytes((*(round(part) for part in colour), round(alpha * 255)))


def _convex(chevron: Sequence[Point]) -> tuple[Sequence[Point], Sequence[Point]]:
    """Return the two halves of a chevron, above and below its notch."""
    a, b, tip, c, d, notch = chevron
    return (a, b, tip, notch), (notch, tip, c, d)


def _stretch(shape: Sequence[Point], y: float, scale: float) -> tuple[float, float] | None:
    """Return where a line at ``y`` is inside of a convex shape, scaled about the middle."""
    middle = VIEW / 2
    # The two chevrons reach from 6 to 28: a little to the right of the middle, as an arrow may.
    points = [(middle + (px - middle) * scale, middle + (py - middle) * scale) for px, py in shape]
    crossings = [
        ax + (bx - ax) * (y - ay) / (by - ay)
        for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True)
        if (ay <= y) != (by <= y)
    ]
    return (min(crossings), max(crossings)) if crossings else None


def _ground(y: float, corner: float) -> tuple[float, float]:
    """Return where a line at ``y`` is inside of the rounded square."""
    depth = max(corner - y, y - (VIEW - corner), 0.0)
    inset = corner - (corner**2 - depth**2) ** 0.5 if depth else 0.0
    return inset, VIEW - inset


def _cover(line: list[float], stretch: tuple[float, float] | None, unit: float) -> None:
    """Add what a stretch covers of each pixel of a line."""
    if stretch is None:
        return
    begin, end = stretch[0] * unit, stretch[1] * unit
    for x in range(max(0, int(begin)), min(len(line), int(end) + 1)):
        line[x] += max(0.0, min(end, x + 1) - max(begin, x)) / LINES_PER_PIXEL


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for one in ICONS:
        (FOLDER / one.name).write_bytes(png(one))
