"""The HTML report: complete, true to its summary, self-contained, escaped, atomic, and sound in a real browser."""

import dataclasses
import html.parser
import os
import pathlib
import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("sklearn")

import matplotlib

import chromium
from concordax import plots, report
from concordax.pages import number
from report_cases import HOSTILE, SUMMARIES, regression, without_pictures


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: report.render(summary) for name, summary in SUMMARIES.items()}


class Page(html.parser.HTMLParser):
    """Tags with their attributes, the text, and the `data` elements (value, text) by the table row they stand in."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.words, self.data, self.row, self.value = [], [], {}, "", None
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.row = attributes.get("data-metric", "") if tag == "tr" else self.row
        self.value = attributes["value"] if tag == "data" else None

    def handle_endtag(self, tag):
        self.row = "" if tag == "tr" else self.row
        self.value = None if tag == "data" else self.value

    def handle_data(self, data):
        self.words.append(data)
        if self.value is not None:
            self.data.setdefault(self.row, []).append((self.value, data))


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_picture_is_there_with_a_label_and_a_caption(pages, name):
    page = Page(pages[name])
    figures = [attributes for tag, attributes in page.tags if tag == "svg"]
    expected = 7 if SUMMARIES[name].history else 4
    assert len(figures) == expected
    assert all(len(attributes["aria-label"]) > 20 and attributes["role"] == "img" for attributes in figures)
    assert sum(tag == "figcaption" for tag, _ in page.tags) == expected


@pytest.mark.parametrize("name", SUMMARIES)
def test_ids_are_unique_and_every_reference_has_its_target(pages, name):
    ids = re.findall(r'\bid="([^"]*)"', pages[name])
    assert len(ids) == len(set(ids))
    used = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', pages[name])
    assert used
    assert {a or b for a, b in used} <= set(ids)


@pytest.mark.parametrize("name", SUMMARIES)
def test_nothing_outside_the_file_is_referred_to(pages, name):
    for tag, attributes in Page(pages[name]).tags:
        assert tag not in ("script", "iframe", "object", "embed", "base"), tag
        for key in {"src", "href", "srcset", "action", "xlink:href"} & set(attributes):
            assert attributes[key].startswith(("#", "data:")), (tag, key)
        assert not any(key.startswith("on") for key in attributes)
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*[\"']?([^)]*)", pages[name]))
    assert "http" not in pages[name]
    assert "@import" not in pages[name]


def test_names_from_the_table_are_shown_and_never_run(pages):
    assert "<script" not in pages["hostile"]
    assert "\x00" not in pages["hostile"]
    page = Page(pages["hostile"])
    assert page.text.count(HOSTILE) >= 8
    assert plots.clean(f"{HOSTILE} 7", 12) in page.text
    assert "$a$" in page.text  # a class, not mathematics


@pytest.mark.parametrize("name", ["regression", "classification"])
def test_every_number_is_the_summarys(pages, name):
    summary, page = SUMMARIES[name], Page(pages[name])
    for metric in summary.metrics:
        shown = page.data[metric.name]
        assert [float(value) for value, _ in shown] == [v for v in (metric.value, metric.baseline) if v is not None]
        assert metric.note in page.text
    exact = {value for values in page.data.values() for value, _ in values}
    for field in (
        "strength",
        "noise",
        "degrees_of_freedom",
        "effective_parameters",
        "n_networks",
        "n_parameters",
        "n_steps",
        "best_step",
        "seconds",
        "n_train",
        "n_test",
    ):
        value = getattr(summary, field)
        assert value is None or repr(value) in exact, field
    for value, text in (pair for pairs in page.data.values() for pair in pairs):
        assert _read(text) == pytest.approx(float(value), rel=5e-4), text
    assert summary.message in page.text
    assert summary.loss_reason in page.text
    assert all(f"{package} {version}" in page.text for package, version in summary.versions.items())


def _read(text: str) -> float:
    """Reads a printed number back."""
    plain = text.replace(",", "").translate(str.maketrans("\N{MINUS SIGN}⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "--0123456789"))
    return float(re.sub(r" . 10(?=-?\d+$)", "e", plain))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345, "12,345"),
        (np.int64(7), "7"),
        (0.0, "0"),
        (4.63127, "4.631"),
        (-2.89717, "\N{MINUS SIGN}2.897"),
        (9.99999, "10.00"),
        (123456.7, "123,457"),
        (4.21e-5, "4.210 \N{MULTIPLICATION SIGN} 10⁻⁵"),
        (float("nan"), "undefined"),
        (float("-inf"), "infinite"),
        (None, "\N{EN DASH}"),
    ],
)
def test_numbers_are_printed_with_four_digits(value, text):
    assert re.sub("<[^>]*>", "", number(value)) == text


def test_a_failed_run_is_said_at_the_top(pages):
    message = "Stopped: steps were rejected one after another."
    page = report.render(dataclasses.replace(without_pictures(), status="stalled", message=message))
    assert message in page.split("<h2>")[0]
    assert 'class="warn"' not in pages["regression"]


def test_of_several_networks_the_report_says_which_is_drawn(pages):
    words = "networks that predict together, the first is drawn"
    assert words in pages["regression"]
    assert words not in report.render(dataclasses.replace(regression(), n_networks=1))


def test_what_is_missing_is_left_out():
    summary = dataclasses.replace(
        regression(), history={"loss": np.array([0.3])}, kernel_eigenvalues=None, y_interval=None, y_deviations=None,
        coverage=(), metrics=(),
    )
    page = report.render(summary)
    assert page.count("<figure>") == 4
    assert report.render(without_pictures()).count("<figure>") == 0


def test_a_constant_target_and_one_row_can_be_drawn():
    one = np.ones(1)
    interval = np.array([[0.5, 1.5]])
    given = {"y_true": one, "y_pred": one, "y_interval": interval, "y_deviations": 0 * one}
    summary = dataclasses.replace(regression(), **given, coverage=((0.5, 1.0),))
    assert report.render(summary).count("<figure>") == 7


def test_the_file_is_written_whole(tmp_path):
    path = tmp_path / "report.html"
    assert report.write(without_pictures(), path) == path
    assert path.read_text(encoding="utf-8") == report.render(without_pictures())
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize("where", ["render", "replace"])
def test_a_failure_leaves_the_old_file_alone(tmp_path, monkeypatch, where):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_):
        raise OSError("full")

    monkeypatch.setattr(*((report, "render") if where == "render" else (os, "replace")), fail)
    with pytest.raises(OSError, match="full"):
        report.write(without_pictures(), path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    seen = []
    replace = os.replace

    def observed(source, target):
        seen.append((path.read_text(), pathlib.Path(source).read_text(encoding="utf-8").rstrip()[-7:]))
        replace(source, target)

    monkeypatch.setattr(os, "replace", observed)
    report.write(without_pictures(), path)
    assert seen == [("old", "</html>")]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`write\(path=.*nowhere.*make it first"):
        report.write(without_pictures(), tmp_path / "nowhere" / "report.html")


def test_pictures_leave_matplotlibs_settings_alone_and_do_not_depend_on_them(monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "axes.linewidth", 3.0)
    before = dict(matplotlib.rcParams)
    first = plots.svg(plots.residuals(np.arange(3.0), np.ones(3)))
    assert dict(matplotlib.rcParams) == before
    monkeypatch.setitem(matplotlib.rcParams, "axes.linewidth", 7.0)
    second = plots.svg(plots.residuals(np.arange(3.0), np.ones(3)))
    assert first == second


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = chromium.find()
    if program is None:
        pytest.skip("no Chromium on this machine")
    browser = chromium.Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
@pytest.mark.parametrize("name", SUMMARIES)
def test_a_browser_shows_it_without_errors_or_overflow(browser, pages, tmp_path, name, width, scheme):
    path = tmp_path / "report.html"
    path.write_text(pages[name], encoding="utf-8")
    chromium.check(browser, path, width, scheme)
