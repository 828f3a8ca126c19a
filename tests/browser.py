"""Headless Chromium for the report's page: started once, told which window, colour scheme and medium it shows."""

import shutil

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = "needs Chromium and its driver (Debian: chromium-driver)"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
HEIGHT = 850
PHONE = 500  # pixels; a narrower window is a phone's


def start(profile):
    """A driver whose browser keeps its files in the folder `profile`."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


def load(driver, page):
    """Load a file, and wait until it is there: a driver may return from a reload while the page is being read."""
    driver.get(page.as_uri())
    WebDriverWait(driver, 30).until(lambda driver: driver.execute_script("return document.readyState") == "complete")


def emulate(driver, width, scheme, media="", scale=1.0):
    """A window so wide; "light" or "dark"; "print" as the medium, or "" for the screen; device pixels to a pixel."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    metrics = {"width": width, "height": HEIGHT, "deviceScaleFactor": scale, "mobile": width < PHONE}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
