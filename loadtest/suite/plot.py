"""Small plots as SVG that need no library, and that can be read on white and on black."""

import math
from xml.sax.saxutils import escape

# Distinct in hue and in lightness; what is ours is the strongest.
COLOURS = {"tollgate": "#d9480f", "bare": "#868e96", "nginx": "#2b8a3e", "nginx-lua": "#74a82a", "haproxy": "#1971c2", "envoy": "#9c36b5",
           "caddy": "#0c8599", "varnish": "#b08900"}
OTHER = ("#5f3dc4", "#c2255c", "#495057")
STYLE = """
.paper { fill: #ffffff } .ink { fill: #212529 } .faint { fill: #5c636a } .grid { stroke: #dee2e6; stroke-width: 1 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round } .limit { stroke-dasharray: 5 4; stroke-width: 1.5; fill: none }
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif }
.title { font-size: 15px; font-weight: 600 } .panel { font-size: 12.5px; font-weight: 600 }
@media (prefers-color-scheme: dark) {
  .paper { fill: #0d1117 } .ink { fill: #e6edf3 } .faint { fill: #9aa4af } .grid { stroke: #30363d }
  .mark { filter: brightness(1.35) }
}
"""
PERCENTS = (50, 90, 99, 99.9, 99.99)
BAR, GAP, PANEL_WIDTH, LABELS = 16, 5, 430, 70
PLOT_WIDTH, PLOT_HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 350, 220, 62, 28, 56, 40


def colour(name):
    return COLOURS.get(name) or OTHER[sum(name.encode()) % len(OTHER)]


def document(width, height, title, body):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
            f"<title>{escape(title)}</title><style>{STYLE}</style>"
            f'<rect class="paper" width="{width}" height="{height}"/>{text(16, 26, title, "ink title")}{"".join(body)}</svg>\n')


def text(x, y, words, kind="ink", anchor="start"):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(str(words))}</text>'


def bars(title, panels, columns=2):
    """Panels of (heading, [(name, value, what to write behind the bar)]), each with a scale of its own."""
    body, tops, width = [], [44] * columns, 16 + columns * (PANEL_WIDTH + 16)
    for heading, entries in panels:
        column = tops.index(min(tops))
        x, y = 16 + column * (PANEL_WIDTH + 16), tops[column]
        body.append(panel(x, y, heading, entries))
        tops[column] = y + 26 + len(entries) * (BAR + GAP) + 14
    return document(width, max(tops), title, body)


def panel(x, y, heading, entries):
    most = max((value for _, value, _ in entries), default=1) or 1
    room = PANEL_WIDTH - LABELS - 110
    parts = [text(x, y + 12, heading, "ink panel")]
    for number, (name, value, words) in enumerate(entries):
        top, length = y + 22 + number * (BAR + GAP), max(1.5, value / most * room)
        parts.append(text(x + LABELS - 6, top + 12, name, "ink", "end"))
        parts.append(f'<rect class="mark" x="{x + LABELS}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour(name)}"/>')
        parts.append(text(x + LABELS + length + 6, top + 12, words, "faint"))
    return "".join(parts)


def percentiles(title, panels):
    """Panels of (heading, {name: [[percent, microseconds]]}): latency over percentile, both logarithmic."""
    lowest = min((value for _, lines in panels for line in lines.values() for _, value in line if value > 0), default=1)
    highest = max((value for _, lines in panels for line in lines.values() for _, value in line), default=10)
    axis = Axis(lowest * 0.9, highest * 1.1)
    body = []
    for number, (heading, lines) in enumerate(panels):
        x = number * (LEFT + PLOT_WIDTH + RIGHT)
        body.append(frame(x, heading, axis, microseconds))
        for percent in PERCENTS:
            body.append(column(x + LEFT + nines(percent) * PLOT_WIDTH, f"{percent:g} %"))
        for name, line in lines.items():
            drawn = [(x + LEFT + nines(percent) * PLOT_WIDTH, axis.y(value)) for percent, value in line if value > 0 and percent <= PERCENTS[-1]]
            body.append(path(drawn, colour(name)))
    width = len(panels) * (LEFT + PLOT_WIDTH + RIGHT)
    height = TOP + PLOT_HEIGHT + BOTTOM + 26
    return document(width, height, title, [*body, legend(LEFT, height - 14, dict.fromkeys(n for _, lines in panels for n in lines))])


def nines(percent):
    """Where a percentile stands between 0 and 1: every further nine takes as much room as the one before."""
    return min(1.0, max(0.0, -math.log10(max(1e-4, 1 - percent / 100)) / 4))


def over_time(title, panels, unit="minutes"):
    """Panels of (heading, [(x, y)], how to write y): one line each, from zero."""
    body = []
    for number, (heading, points, write) in enumerate(panels):
        x = number * (LEFT + PLOT_WIDTH + RIGHT)
        axis = Axis(0, 4 * round_step(max((y for _, y in points), default=1) / 4), logarithmic=False)
        end = max((at for at, _ in points), default=1) or 1
        body.append(frame(x, heading, axis, write))
        body += [column(x + LEFT + part * PLOT_WIDTH, f"{end * part:.3g}") for part in (0, 0.5, 1)]
        body.append(path([(x + LEFT + at / end * PLOT_WIDTH, axis.y(y)) for at, y in points], COLOURS["tollgate"]))
    width = len(panels) * (LEFT + PLOT_WIDTH + RIGHT)
    return document(width, TOP + PLOT_HEIGHT + BOTTOM + 26, title, [*body, text(LEFT, TOP + PLOT_HEIGHT + BOTTOM + 10, unit, "faint")])


def round_step(least):
    """The next number that is good for the lines of an axis."""
    decade = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return next(step * decade for step in (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10) if step * decade >= least * 1.02 or step == 10)


class Axis:
    """The vertical axis: from values to places, and where its lines are."""

    def __init__(self, low, high, logarithmic=True):
        self.low, self.high, self.logarithmic = low, high, logarithmic

    def y(self, value):
        low, high, value = (math.log10(max(v, 1e-9)) if self.logarithmic else v for v in (self.low, self.high, value))
        return TOP + PLOT_HEIGHT * (1 - (value - low) / ((high - low) or 1))

    def ticks(self):
        if not self.logarithmic:
            return [self.high * part / 4 for part in range(5)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        return [10.0 ** decade * step for decade in decades for step in (1, 2, 5) if self.low <= 10.0 ** decade * step <= self.high]


def frame(x, heading, axis, write):
    parts = [text(x + LEFT, TOP - 8, heading, "ink panel")]
    for tick in axis.ticks():
        y = axis.y(tick)
        parts.append(f'<line class="grid" x1="{x + LEFT}" x2="{x + LEFT + PLOT_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(x + LEFT - 6, y + 4, write(tick), "faint", "end"))
    return "".join(parts)


def column(x, words):
    return (f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + PLOT_HEIGHT}"/>'
            + text(x, TOP + PLOT_HEIGHT + 16, words, "faint", "middle"))


def path(points, paint):
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="line mark" stroke="{paint}" points="{drawn}"/>'


def legend(x, y, names):
    parts = []
    for name in names:
        parts.append(f'<rect class="mark" x="{x}" y="{y - 9}" width="14" height="4" rx="2" fill="{colour(name)}"/>')
        parts.append(text(x + 20, y - 3, name))
        x += 42 + 7 * len(name)
    return "".join(parts)


def microseconds(value):
    return f"{value:.0f} µs" if value < 1000 else f"{value / 1000:g} ms" if value < 1e6 else f"{value / 1e6:g} s"
