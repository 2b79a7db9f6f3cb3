"""The picture of a run: one panel for each scenario, one bar for each variant, as SVG.

Owns shapes and colours; the figures come from `summary`.
"""

from __future__ import annotations

from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING

from .report import format_cost
from .variants import BASELINE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .report import Circumstances
    from .scenarios import Scenario
    from .summary import Cell, Summary
    from .variants import Variant

# Pixels.
_WIDTH = 1240
_MARGIN = 24
_GAP = 32
_COLUMNS = 2
_PANEL = (_WIDTH - 2 * _MARGIN - (_COLUMNS - 1) * _GAP) // _COLUMNS
_NAMES = 172
_VALUES = 128
_BAR = _PANEL - _NAMES - _VALUES
_ROW = 17
_TITLE = 28
_LINE = 16
# Characters of the header's lines.
_WRAP = 165

# A bar that is longer than so many times the baseline's is cut, or it would hide all others.
_CUT = 4.0

_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2328}.head{font-size:20px;font-weight:600}"
    ".title{font-size:13px;font-weight:600}"
    ".small{fill:#59636e}.halo{stroke:#fff;stroke-width:3px}.ours{font-weight:600}"
    ".end{text-anchor:end}.bar-ours{fill:#0b6bcb}.bar-bound{fill:#d0d7de}.bar-peer{fill:#8c959f}"
    ".bar-base{fill:#bf8700}.rule{stroke:#bf8700;stroke-dasharray:2 3}"
)


def render_svg(
    circumstances: Circumstances,
    summary: Summary,
    scenarios: Sequence[Scenario],
    variants: Sequence[Variant],
) -> str:
    """Draw the costs of all variants in all scenarios; short bars are good."""
    header, top = _render_header(circumstances)
    heights = [top] * _COLUMNS
    panels = []
    for scenario in scenarios:
        column = heights.index(min(heights))
        x = _MARGIN + column * (_PANEL + _GAP)
        panel, height = _render_panel(scenario, summary, variants)
        panels.append(f'<g transform="translate({x} {heights[column]})">{panel}</g>')
        heights[column] += height + _GAP
    height = max(heights)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' width="{_WIDTH}" height="{height}" role="img" aria-label="What a WebSocket costs">'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{header}{''.join(panels)}</svg>\n"
    )


def _render_header(circumstances: Circumstances) -> tuple[str, int]:
    """Give the header, and where the panels begin."""
    versions = ", ".join(f"{name} {number}" for name, number in circumstances.versions.items())
    meaning = (
        "CPU time for one operation, kernel included, or memory for one connection: short bars are"
        f" good. In brackets: how many times cheaper than {BASELINE}, in the same round (median of"
        f" {circumstances.rounds}); above 1 is cheaper."
    )
    sentences = [
        meaning,
        f"{circumstances.date}. {circumstances.machine}. Generator in {circumstances.language}.",
        versions,
        circumstances.command,
    ]
    if circumstances.quick:
        sentences.insert(0, "A quick run: its figures mean nothing.")
    lines = [line for sentence in sentences for line in wrap(sentence, _WRAP)]
    parts = [_text(_MARGIN, 36, "What a WebSocket costs", "head")]
    parts += [
        _text(_MARGIN, 60 + number * _LINE, line, "small") for number, line in enumerate(lines)
    ]
    return "".join(parts), 60 + len(lines) * _LINE + 12


def _render_panel(
    scenario: Scenario, summary: Summary, variants: Sequence[Variant]
) -> tuple[str, int]:
    """Give one panel, and its height."""
    rows = [
        (variant, cell)
        for variant in variants
        if (cell := summary.get((scenario.key, variant.name))) is not None
    ]
    base = summary.get((scenario.key, BASELINE))
    costs = [cell.cost for _, cell in rows if cell.cost is not None]
    longest = max(costs, default=0)
    unit = base.cost if base is not None and base.cost is not None else longest
    scale = _BAR / (min(longest, unit * _CUT) or 1)
    parts = [_text(0, 13, f"{scenario.key}: {scenario.description} ({scenario.unit})", "title")]
    height = _TITLE + len(rows) * _ROW
    if base is not None and base.cost is not None:
        x = _NAMES + base.cost * scale
        parts.append(f'<path class="rule" d="M{x:.1f} {_TITLE - 4}V{height}"/>')
    for number, (variant, cell) in enumerate(rows):
        y = _TITLE + number * _ROW
        parts.append(_text(_NAMES - 8, y + 10, variant.name, "end ours" if variant.ours else "end"))
        parts.append(_render_bar(variant, cell, scale, y))
    return "".join(parts), height


def _render_bar(variant: Variant, cell: Cell, scale: float, y: int) -> str:
    if cell.cost is None:
        return _text(_NAMES, y + 10, "failed", "small")
    kind = "ours" if variant.ours else "bound" if variant.bound else "peer"
    if variant.name == BASELINE:
        kind = "base"
    # Memory that shrank has no bar.
    size = max(0.0, min(cell.cost * scale, float(_BAR)))
    value = format_cost(cell.cost)
    if cell.cost * scale > _BAR + 0.5:
        value = f"→ {value}"
    if cell.ratio is not None:
        value += f" [{cell.ratio:.2f}]"
    # The baseline's rule must not run through it, and not all viewers can paint a stroke first.
    place = (_NAMES + size + 6, y + 10, value)
    return (
        f'<rect class="bar-{kind}" x="{_NAMES}" y="{y}" width="{size:.1f}" height="12"/>'
        + _text(*place, "small halo")
        + _text(*place, "small")
    )


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(text)}</text>'
