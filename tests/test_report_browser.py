"""The page in a browser (headless Chromium): it loads nothing, reports no error, filters, sorts, fits a phone."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("selenium")

from browser import CHROMIUM, DRIVER, MISSING, emulate, load, start
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from convbench.report import pages
from convbench.report.results import Point, Report, Scaling, ratio

EXAMPLE = next((Path(__file__).parents[1] / "reports").glob("*/report.json"), None)

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=MISSING),
    pytest.mark.skipif(EXAMPLE is None, reason="needs the example in reports/"),
]


@pytest.fixture(scope="module")
def report():
    return Report.load(EXAMPLE)


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    return pages.write(report, tmp_path_factory.mktemp("report"))[0]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    driver = start(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


@pytest.fixture
def browser(started, page):
    """The page, freshly loaded in a wide window; nothing on the console when the test is over."""
    emulate(started, 1280, "light")
    load(started, page)
    yield started
    assert started.get_log("browser") == []


def _shown(browser, table):
    """The lines that a table shows: the texts of their cells."""
    script = """return [...document.getElementById(arguments[0]).tBodies[0].rows].filter(r => r.offsetParent)
                .map(r => [...r.cells].filter(c => c.offsetParent).map(c => c.innerText.split("\\n")[0]))"""
    return browser.execute_script(script, table)


def _heading(browser, table, text):
    found = browser.find_elements(By.CSS_SELECTOR, f"#{table} thead th")
    return next(heading for heading in found if heading.text.split()[0] == text)


def _in_scheme(driver, page, width, scheme, media, script):
    emulate(driver, width, scheme, media)
    load(driver, page)
    return driver.execute_script(script)


def test_nothing_is_fetched_and_every_figure_is_there(browser, report):
    assert browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
    titles = browser.execute_script("return [...document.querySelectorAll('svg')].map(s => s.ariaLabel)")
    assert "One channel: fastest engine" in titles
    assert {row.name for row in report.rows if row.best} <= set(titles)
    assert len(_shown(browser, "overview")) == len(report.rows)


def test_a_figure_is_read_off_the_winner_map(browser, report):
    row = next(row for row in report.rows if row.name == "photo-256-k3")
    cell = browser.find_element(By.ID, f"winner-map-one-channel-cell-{row.name}")
    assert cell.find_element(By.TAG_NAME, "text").text == ratio(row.speedup)
    hint = cell.find_element(By.TAG_NAME, "title").get_attribute("textContent")
    assert hint.startswith(f"{row.name} ({row.text}): {row.best}, lead {ratio(row.speedup)}")
    drawn = cell.find_element(By.TAG_NAME, "text").rect
    assert drawn["width"] > 5
    assert drawn["height"] > 5


def test_words_filter_every_table(browser, report):
    box = browser.find_element(By.ID, "filter")
    box.send_keys("PHOTO k21")
    wanted = [row.name for row in report.rows if "photo" in row.name and "k21" in row.text.replace("kh", "k")]
    assert wanted
    assert [line[0] for line in _shown(browser, "overview")] == wanted
    assert {line[0] for line in _shown(browser, "measurements")} == set(wanted)
    assert browser.find_element(By.ID, "overview-count").text == f"{len(wanted)} of {len(report.rows)} lines"
    box.send_keys(" nosuchword")
    assert _shown(browser, "overview") == []
    box.clear()
    box.send_keys(Keys.SPACE)
    assert len(_shown(browser, "overview")) == len(report.rows)


def test_an_unchecked_engine_leaves_columns_and_lines(browser, report):
    before = len(_shown(browser, "overview")[0])
    browser.find_element(By.CSS_SELECTOR, "input[value=toeplitz]").click()
    assert len(_shown(browser, "overview")[0]) == before - 1
    for table in ("measurements", "refusals"):
        engines = {line[1] for line in _shown(browser, table)}
        assert "toeplitz" not in engines
        assert engines
    browser.find_element(By.CSS_SELECTOR, "input[value=toeplitz]").click()
    assert len(_shown(browser, "overview")[0]) == before


def test_headings_sort_by_number_by_mouse_and_keyboard(browser, report):
    heading = _heading(browser, "overview", "lead")
    assert heading.get_attribute("aria-sort") == "none"
    heading.find_element(By.TAG_NAME, "button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    ascending = sorted(report.rows, key=lambda row: row.speedup)
    assert [line[0] for line in _shown(browser, "overview")] == [row.name for row in ascending]
    heading.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert heading.get_attribute("aria-sort") == "descending"
    assert _shown(browser, "overview")[0][0] == ascending[-1].name
    toeplitz = _heading(browser, "overview", "toeplitz")
    toeplitz.find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
    assert toeplitz.get_attribute("aria-sort") == "ascending"
    assert heading.get_attribute("aria-sort") == "none"
    timed = [row for row in report.rows if "toeplitz" in row.measured]
    fastest = min(timed, key=lambda row: row.engines["toeplitz"].median)
    assert _shown(browser, "overview")[0][0] == fastest.name
    refused = {line[0] for line in _shown(browser, "overview")[len(timed) :]}
    assert refused == {row.name for row in report.rows} - {row.name for row in timed}


def test_the_front_of_the_chosen_problem_is_shown(browser, report):
    figures = (
        "return [...document.querySelectorAll('#fronts figure')].filter(f => f.offsetParent).map(f => f.innerText)"
    )
    assert [text.split("\n")[0] for text in browser.execute_script(figures)] == [report.rows[0].name]
    browser.find_element(By.CSS_SELECTOR, "#front-of option:last-child").click()
    assert [text.split("\n")[0] for text in browser.execute_script(figures)] == [report.rows[-1].name]


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_never_scrolls_sideways_but_its_tables_do(browser, page, width):
    script = """const box = document.querySelector('.scroll');
                return [document.documentElement.scrollWidth, box.scrollWidth > box.clientWidth]"""
    wide, table = _in_scheme(browser, page, width, "light", "", script)
    assert wide <= width
    assert table


def test_the_page_follows_the_colour_scheme_and_prints_dark_on_white(browser, page):
    script = """const text = document.querySelector('#maps svg text');
                return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
                        getComputedStyle(text).fill, getComputedStyle(document.querySelector('.filters')).display]"""
    light = _in_scheme(browser, page, 1280, "light", "", script)
    dark = _in_scheme(browser, page, 1280, "dark", "", script)
    printed = _in_scheme(browser, page, 1280, "dark", "print", script)
    assert light[0] == printed[0] == "rgb(255, 255, 255)"
    for paper, ink, figure, _ in (light, dark, printed):
        assert ink == figure
        assert abs(_brightness(paper) - _brightness(ink)) > 150
    assert _brightness(dark[0]) < 50
    assert (dark[3], printed[3]) == ("flex", "none")


def _brightness(colour):
    return sum(json.loads(f"[{colour.removeprefix('rgb(').removesuffix(')')}]")) / 3


def test_the_downloads_are_the_files(browser, page):
    script = "return fetch(document.querySelector(`a[download='${arguments[0]}']`).href).then(r => r.text())"
    assert browser.execute_script(script, "report.csv") == (page.parent / "report.csv").read_text()
    assert json.loads(browser.execute_script(script, "report.json")) == json.loads(
        (page.parent / "report.json").read_text()
    )


def test_names_on_the_fronts_cover_no_other_name(browser):
    script = """const found = [];
        for (const figure of document.querySelectorAll('#fronts figure')) {
          figure.hidden = false;
          const texts = [...figure.querySelectorAll('svg text')];
          const names = texts.filter(text => /, [\\d.]+ ([KMG]i)?B$/.test(text.textContent));
          found.push(names.map(name => { const box = name.getBoundingClientRect();
                                         return [name.textContent, box.left, box.top, box.right, box.bottom] }));
        }
        return found"""
    fronts = browser.execute_script(script)
    assert min(map(len, fronts)) > 0
    for names in fronts:
        for (name, *a), (other, *b) in itertools.combinations(names, 2):
            across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            assert across < 2 or down < 4, (name, other)  # pixels; boxes include the line's spacing


def _with_everything(report):
    """The example as if all that a run may take had been taken, on 64 threads."""
    rows = []
    for row in report.rows:
        entries = {
            name: replace(
                entry, plan_seconds=1e-3, times=[entry.median * (1 + at / 400) for at in range(-10, 10)]
            )
            for name, entry in row.measured.items()
        }  # fmt: skip
        rows.append(replace(row, engines={**row.engines, **entries}))
    scaling = []
    for at, row in enumerate(sorted(report.rows, key=lambda row: -len(row.name))[:8]):
        seconds = {threads: 1e-3 / threads ** (0.3 + at / 10) for threads in (1, 2, 4, 8, 16, 32, 64)}
        points = [
            Point(threads, middle, middle, middle, 20, [middle * (1 + at / 200) for at in range(-10, 10)])
            for threads, middle in seconds.items()
        ]
        scaling.append(Scaling(row.name, row.best, points))
    peaks = {"float32": 4.58e11, "float64": 2.3e11}
    return replace(report, rows=rows, peaks=peaks, bandwidth=3e10, scaling=scaling)


@pytest.fixture(scope="module")
def full(report, tmp_path_factory):
    """The page of a report with every section."""
    return pages.write(_with_everything(report), tmp_path_factory.mktemp("full"))[0]


def test_every_section_is_linked_and_says_what_its_bands_are(started, full):
    emulate(started, 1280, "light")
    load(started, full)
    script = """const links = [...document.querySelectorAll("nav a[href^='#']")].map(a => a.getAttribute('href'));
                return links.filter(link => document.querySelector(link + ' h2'))"""
    linked = started.execute_script(script)
    assert {"#curves", "#roofline", "#scaling", "#amortisation"} <= set(linked)
    script = "return [...document.querySelectorAll(arguments[0] + ' svg')].map(svg => svg.textContent)"
    for section in ("#curves", "#scaling"):
        texts = started.execute_script(script, section)
        assert texts, section
        assert all("bands: 95% confidence of the median" in text for text in texts), section
    (scaling,) = started.execute_script(script, "#scaling")
    assert "ideal" in scaling
    assert "64×" in scaling
    assert "have no" not in started.find_element(By.ID, "machine").text
    assert started.get_log("browser") == []


@pytest.mark.parametrize(("width", "media"), [(390, ""), (1280, ""), (1280, "print")])
def test_no_text_of_a_figure_is_clipped(started, full, width, media):
    script = """const found = [];
        for (const svg of document.querySelectorAll('svg')) {
          const frame = svg.getBoundingClientRect();
          if (!frame.width) continue;
          for (const text of svg.querySelectorAll('text')) {
            const box = text.getBoundingClientRect();
            found.push([text.textContent, frame.left - box.left, box.right - frame.right,
                        frame.top - box.top, box.bottom - frame.bottom]);
          }
        }
        return found"""
    texts = _in_scheme(started, full, width, "dark", media, script)
    assert len(texts) > 500
    assert [text for text in texts if max(text[1:]) > 3] == []  # pixels; a browser's font is not the plot's


@pytest.mark.parametrize("width", [320, 390])
def test_a_page_with_every_section_fits_a_phone(started, full, width):
    assert _in_scheme(started, full, width, "light", "", "return document.documentElement.scrollWidth") <= width


def test_the_pictures_of_the_documentation_are_of_these_sections(started, page):
    import report_pictures

    for take, size in ((report_pictures.light, (1280, 1050)), (report_pictures.phone, (585, 1350))):
        assert _size(take(started, page)) == size
    width, height = _size(report_pictures.dark(started, page))
    assert width == 1280
    assert 900 < height < 1600
    assert {line[0].split("-")[0] for line in _shown(started, "overview")} == {"resnet50"}
    assert started.find_element(By.ID, "front-of").get_property("selectedOptions")[0].text == report_pictures.PROBLEM
    assert _heading(started, "overview", "lead").get_attribute("aria-sort") == "descending"


def _size(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
