"""Small charts as inline SVG: axes, lines, bands, stacks. No library, no script, no network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "Chart", "log_ticks", "nice_ticks", "short"]

Point = tuple[float, float]


def short(value: float) -> str:
    """A number for a tick: ``950``, ``1.2k``, ``35k``."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1e3:
        return f"{value / 1e3:g}k"
    return f"{value:g}"


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About *count* round numbers from *low* to *high*, both finite, high above low."""
    raw = (high - low) / count
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from *low* to *high* (both above 0), with 2 and 5 when there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors: Sequence[int] = (1, 2, 5) if last - first <= 3 else (1,)
    if high < low * 8:
        factors = range(1, 10)
    ticks = [m * 10.0**e for e in range(first, last + 1) for m in factors]
    return [t for t in ticks if low * 0.999 <= t <= high * 1.001]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its range, ticks with their text, and whether it is logarithmic."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    title: str
    is_log: bool = False

    @classmethod
    def linear(
        cls, low: float, high: float, title: str, text: Callable[[float], str] = short
    ) -> Axis:
        """Round ticks."""
        high = high if high > low else low + 1
        return cls(low, high, [(t, text(t)) for t in nice_ticks(low, high)], title)

    @classmethod
    def log(cls, low: float, high: float, title: str) -> Axis:
        """Powers of ten; the range is widened a little, so that no point sits on the frame."""
        low, high = max(low, 1e-12) * 0.8, max(high, 1e-12) * 1.25
        return cls(low, high, [(t, short(t)) for t in log_ticks(low, high)], title, is_log=True)

    def place(self, value: float) -> float:
        """0 to 1 along the axis; outside values are cut to it."""
        if self.is_log:
            value = max(value, self.low)
            at = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            at = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, at))


class Chart:
    """A chart being drawn. :meth:`render` returns the ``<svg>`` element."""

    LEFT, RIGHT, TOP, BOTTOM = 62, 16, 12, 44

    def __init__(self, x: Axis, y: Axis, *, width: int = 760, height: int = 300) -> None:
        self.x, self.y = x, y
        self.width, self.height = width, height
        self._shapes: list[str] = []
        self._legend: list[tuple[str, str, str]] = []

    def at(self, point: Point) -> Point:
        """Where a point lies, in pixels."""
        inner_width = self.width - self.LEFT - self.RIGHT
        inner_height = self.height - self.TOP - self.BOTTOM
        return (
            self.LEFT + self.x.place(point[0]) * inner_width,
            self.TOP + (1 - self.y.place(point[1])) * inner_height,
        )

    def _path(self, points: Sequence[Point]) -> str:
        return " ".join(f"{px:.1f},{py:.1f}" for px, py in map(self.at, points))

    def line(
        self, points: Sequence[Point], colour: str, label: str = "", *, dash: str = ""
    ) -> None:
        """Straight lines through *points*; a label makes a legend entry."""
        if not points:
            return
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self._shapes.append(
            f'<polyline points="{self._path(points)}" fill="none" stroke="{colour}" '
            f'stroke-width="2" stroke-linejoin="round"{dashed}>{_title(label)}</polyline>'
        )
        if label:
            self._legend.append((label, colour, "dash" if dash else "line"))

    def area(
        self,
        upper: Sequence[Point],
        lower: Sequence[Point],
        colour: str,
        label: str = "",
        *,
        opacity: float = 1.0,
    ) -> None:
        """What lies between two lines."""
        if not upper:
            return
        path = self._path([*upper, *reversed(lower)])
        self._shapes.append(
            f'<polygon points="{path}" fill="{colour}" fill-opacity="{opacity}">'
            f"{_title(label)}</polygon>"
        )
        if label:
            self._legend.append((label, colour, "area" if opacity == 1 else "faint"))

    def legend(self, label: str, colour: str) -> None:
        """An entry for marks of that colour."""
        self._legend.append((label, colour, "mark"))

    def dot(
        self,
        point: Point,
        colour: str,
        hint: str = "",
        *,
        hollow: bool = False,
        radius: float = 4.5,
    ) -> None:
        """One mark, with a text that appears under the pointer."""
        px, py = self.at(point)
        fill = "var(--surface)" if hollow else colour
        self._shapes.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{radius}" fill="{fill}" stroke="{colour}" '
            f'stroke-width="2">{_title(hint)}</circle>'
        )

    def text(self, point: Point, words: str, *, dy: float = 0, anchor: str = "start") -> None:
        """Words at a point."""
        px, py = self.at(point)
        self._shapes.append(
            f'<text x="{px:.1f}" y="{py + dy:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def render(self) -> str:
        """The legend and the ``<svg>`` element, as HTML."""
        right, bottom = self.width - self.RIGHT, self.height - self.BOTTOM
        out = [
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(self.y.title)} by {escape(self.x.title)}">'
        ]
        for value, text in self.y.ticks:
            _, py = self.at((self.x.low, value))
            out.append(
                f'<line class="grid" x1="{self.LEFT}" x2="{right}" y1="{py:.1f}" y2="{py:.1f}"/>'
            )
            out.append(
                f'<text x="{self.LEFT - 8}" y="{py + 4:.1f}" text-anchor="end">'
                f"{escape(text)}</text>"
            )
        for value, text in self.x.ticks:
            px, _ = self.at((value, self.y.low))
            out.append(
                f'<line class="grid" x1="{px:.1f}" x2="{px:.1f}" y1="{self.TOP}" y2="{bottom}"/>'
            )
            out.append(
                f'<text x="{px:.1f}" y="{bottom + 17}" text-anchor="middle">{escape(text)}</text>'
            )
        out.append(
            f'<line class="axis" x1="{self.LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
        )
        out += self._shapes
        middle = (self.TOP + bottom) / 2
        out.append(
            f'<text class="title" x="{(self.LEFT + right) / 2:.0f}" y="{self.height - 6}" '
            f'text-anchor="middle">{escape(self.x.title)}</text>'
            f'<text class="title" transform="rotate(-90 14 {middle:.0f})" x="14" y="{middle:.0f}" '
            f'text-anchor="middle">{escape(self.y.title)}</text></svg>'
        )
        return _legend(self._legend) + "\n".join(out)


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def _legend(entries: Sequence[tuple[str, str, str]]) -> str:
    items = "".join(
        f'<span><i class="{kind}" style="--c:{colour}"></i>{escape(label)}</span>'
        for label, colour, kind in entries
    )
    return f'<div class="legend">{items}</div>' if items else ""
