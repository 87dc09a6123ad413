"""What the HTML reports share: pictures inside of the page, numbers, the environment of the templates, writing."""

import math
import pathlib
import re
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from . import plots
from .files import replace_atomically

try:
    import jinja2
    from markupsafe import Markup
except ImportError as error:
    raise ImportError("`concordax.report` needs jinja2: `pip install 'concordax[report]'`.") from error

_DIGITS = 4


class Picture(NamedTuple):
    """A figure of the report.

    Attributes:
        title: what it shows.
        svg: inline SVG.
        reading: how to read it, one or two sentences.
    """

    title: str
    svg: Markup
    reading: str


def environment() -> jinja2.Environment:
    """The templates of the package, with `number` as a filter."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("concordax", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = number
    return made


def write(page: str, path: pathlib.Path) -> pathlib.Path:
    """Writes a page, whole or not at all: a file that was there stays as it is until the new one is complete.

    Args:
        page: HTML.
        path: where to; its folder must exist.

    Returns:
        The path.

    Raises:
        FileNotFoundError: if the folder does not exist.
        UsageError: if something else than a file is there.
        OSError: if it cannot be written to.
    """
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"`write(path={str(path)!r})`: the folder {str(path.parent)!r} does not exist; make it first."
        )
    # Lone surrogates (undecodable bytes of a file name) have no UTF-8 form; a "?" in their place harms nobody.
    with replace_atomically(path) as file:
        file.write(page.encode("utf-8", errors="replace"))
    return path


def number(value: int | float | np.number | None) -> Markup:
    """A number for people, with the exact one in a `data` element for programs.

    Args:
        value: any number; integers are shown whole, others to four significant digits; None is a dash.

    Returns:
        HTML.
    """
    if value is None:
        return Markup("\N{EN DASH}")
    return Markup('<data value="{}">{}</data>').format(repr(np.asarray(value).item()), _text(value))


def _text(value: int | float | np.number) -> str:
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "infinite"
    if isinstance(value, int | np.integer) or value == 0:
        text = f"{int(value):,}"
    elif 1e-4 <= abs(value) < 1e7:
        # Rounded first: 9.99999 has one digit more before the point than it seems.
        rounded = float(f"{value:.{_DIGITS - 1}e}")
        decimals = max(0, _DIGITS - 1 - math.floor(math.log10(abs(rounded))))
        text = f"{value:,.{decimals}f}"
    else:
        mantissa, exponent = f"{value:.{_DIGITS - 1}e}".split("e")
        text = f"{mantissa} \N{MULTIPLICATION SIGN} 10{plots.superscript(int(exponent))}"
    return text.replace("-", "\N{MINUS SIGN}")


def picture(figure: plots.Figure, title: str, reading: str, description: str = "") -> Picture:
    """A figure with its title and how to read it; `description` is for screen readers."""
    return Picture(title, inline_svg(figure, re.sub(r"\W+", "-", title.lower()), description or title), reading)


def inline_svg(figure: plots.Figure, key: str, label: str) -> Markup:
    """A figure as an `svg` element for a page: own ids, text for screen readers, the page's colors.

    Args:
        figure: the picture.
        key: prefix of every id in it; unique in the page.
        label: what a screen reader says.

    Returns:
        The element, without namespaces, which HTML does not need.
    """
    colors = {value: f"var(--{name})" for name, value in plots.PALETTE.items()}
    swap = re.compile("|".join(colors))
    root = ElementTree.fromstring(plots.svg(figure))
    for parent in list(root.iter()):
        for child in list(parent):
            # Metadata names the world outside; a style sheet would hold for the whole page.
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib.clear()
        for name, value in attributes.items():
            if name == "id":
                value = f"{key}-{value}"
            elif name == "href":
                value = f"#{key}-{value.removeprefix('#')}"
            else:
                value = swap.sub(lambda match: colors[match[0]], value).replace("url(#", f"url(#{key}-")
            element.set(name, value)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": label, "class": "plot"}
    return Markup(ElementTree.tostring(root, encoding="unicode"))
