"""The page in a browser (headless Chromium): it loads nothing, reports no error, filters, sorts, fits a phone."""

import itertools
import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("selenium")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from convbench.report import pages
from convbench.report.results import Report, ratio

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
EXAMPLE = next((Path(__file__).parents[1] / "reports").glob("*/report.json"), None)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and its driver (Debian: chromium-driver)"),
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
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(started, page):
    """The page, freshly loaded in a wide window; nothing on the console when the test is over."""
    _emulate(started, 1280, "light")
    started.get(page.as_uri())
    yield started
    assert started.get_log("browser") == []


def _emulate(driver, width, scheme, media=""):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    metrics = {"width": width, "height": 850, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def _shown(browser, table):
    """The lines that a table shows: the texts of their cells."""
    script = """return [...document.getElementById(arguments[0]).tBodies[0].rows].filter(r => r.offsetParent)
                .map(r => [...r.cells].filter(c => c.offsetParent).map(c => c.innerText.split("\\n")[0]))"""
    return browser.execute_script(script, table)


def _heading(browser, table, text):
    found = browser.find_elements(By.CSS_SELECTOR, f"#{table} thead th")
    return next(heading for heading in found if heading.text.split()[0] == text)


def _in_scheme(driver, page, width, scheme, media, script):
    _emulate(driver, width, scheme, media)
    driver.get(page.as_uri())
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
