"""Figures as SVG that stands in a page: its own text, the page's colours in the light and in the dark, nothing fetched."""

import io
import re
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

_SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "evergreen", "font.sans-serif": ["DejaVu Sans"]}
# what matplotlib writes, and the page's own colours: lighter in the dark
_COLOURS = {
    "#000000": "var(--ink)",
    "#ebebeb": "var(--line)",
    "#bfbfbf": "var(--rule)",
    "#7f7f7f": "var(--soft)",
    "#d55e00": "var(--vermilion)",
    "#0072b2": "var(--blue)",
    "#009e73": "var(--green)",
}


def svg(figure: Figure, told: str, name: str) -> Markup:
    """The figure as an `<svg>` element that says what it shows, `told`, to who cannot see it.

    `name` tells its inner ids from those of other figures of a page.
    """
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    file = io.StringIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(file, format="svg", metadata={key: None for key in ("Creator", "Date", "Format", "Type")})
    drawn = file.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    head, body = drawn.split(">", 1)
    box = re.search(r'viewBox="([\d. ]+)"', head)
    for colour, own in _COLOURS.items():
        body = body.replace(f": {colour}", f": {own}")
    body = re.sub(r' id="([^"]+)"', lambda match: f' id="{name}-{match[1]}"' if _used(match[1], body) else "", body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = re.sub(r"\s*\n\s*", "\n", body).replace("'DejaVu Sans'", "system-ui")
    label = escape(told)
    view = box[1] if box else "0 0 100 100"
    width = view.split()[2]
    return Markup(f'<svg role="img" aria-label="{label}" viewBox="{view}" style="max-width: {width}pt" class="picture">{body}')


def _used(name: str, body: str) -> bool:
    return f'"#{name}"' in body or f"url(#{name})" in body
