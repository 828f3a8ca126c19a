"""The pictures of docs/reports.md, from the example in reports/ (needs Chromium and the `test` extra).

``python tests/report_pictures.py`` remakes them; ``python tests/report_pictures.py REPORT.json FOLDER`` makes those of
another run elsewhere, and ``whole.pdf`` beside them: the page as it prints.
"""

import base64
import sys
import tempfile
from pathlib import Path

import browser
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from convbench.report import pages
from convbench.report.results import Report

ROOT = Path(__file__).parents[1]
WIDE, PHONE, SHARP = 1280, 390, 1.5  # pixels, and a phone's device pixels to one of them
TOP_HEIGHT, PHONE_HEIGHT = 1050, 900
MARGIN = 12
PROBLEM = "resnet50-3x3-56"  # whose front is shown; the tables have its network's layers


def light(driver, page):
    """The summary and the first maps."""
    _load(driver, page, WIDE, "light")
    return _picture(driver, 0, TOP_HEIGHT)


def dark(driver, page):
    """A front, and the table of problems filtered and sorted by the lead."""
    _load(driver, page, WIDE, "dark")
    driver.find_element(By.ID, "front-of").send_keys(PROBLEM, Keys.ENTER)
    driver.find_element(By.ID, "filter").send_keys(PROBLEM.split("-")[0])
    lead = driver.find_element(By.XPATH, "//*[@id='overview']//th/button[starts-with(., 'lead')]")
    for _ in range(2):  # once more: downwards
        driver.execute_script("arguments[0].click()", lead)
    driver.execute_script("document.activeElement.blur()")
    top, bottom = _edge(driver, "#front h2", "top"), _edge(driver, "#overview tbody", "bottom")
    return _picture(driver, top - MARGIN, bottom - top + 2 * MARGIN)


def phone(driver, page):
    """The first curves, as a phone has them."""
    _load(driver, page, PHONE, "light", SHARP)
    return _picture(driver, _edge(driver, "#curves h2", "top") - MARGIN, PHONE_HEIGHT)


def _load(driver, page, width, scheme, scale=1.0):
    browser.emulate(driver, width, scheme, scale=scale)
    browser.load(driver, page)


def _edge(driver, selector, side):
    script = "return document.querySelector(arguments[0]).getBoundingClientRect()[arguments[1]] + window.scrollY"
    return driver.execute_script(script, selector, side)


def _picture(driver, top, height):
    width = driver.execute_script("return window.innerWidth")
    clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    return base64.b64decode(taken["data"])


def main(arguments):
    """Write the pictures."""
    example = next((ROOT / "reports").glob("*/report.json"), None)
    report, folder = arguments or (example, ROOT / "docs")
    with tempfile.TemporaryDirectory(prefix="cb-") as scratch:
        page = pages.write(Report.load(report), Path(scratch))[0]
        driver = browser.start(Path(scratch) / "profile")
        try:
            for take in (light, dark, phone):
                (Path(folder) / f"report-{take.__name__}.png").write_bytes(take(driver, page))
            if arguments:
                printed = driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
                (Path(folder) / "whole.pdf").write_bytes(base64.b64decode(printed["data"]))
        finally:
            driver.quit()


if __name__ == "__main__":
    main(sys.argv[1:])
