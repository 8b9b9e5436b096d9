"""The report in a real browser: Debian's Chromium, headless. It shows, pages, fetches nothing, runs nothing.

Skipped where there is no Chromium, unless MAGPIE_RAY_NEEDS_BROWSER is set, as .ci/run does. With
MAGPIE_RAY_SCREENSHOTS=FOLDER the pictures are kept.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from magpie_ray.dataset.layout import REPORT_KEY
from magpie_ray.publish.report.report import write_report
from tests.support.report_builds import HOSTILE, rich_build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("MAGPIE_RAY_NEEDS_BROWSER"),
        reason="no chromium here: apt-get install chromium",
    ),
]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rich")
    write_report(rich_build(folder), price=2.5)
    return folder


@pytest.fixture(scope="module")
def url(output: Path) -> Iterator[str]:
    """Of the report over HTTP, as through a presigned URL."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(output)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/{REPORT_KEY}?X-Amz-Signature=0123&X-Amz-Expires=600"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page, with all that it asked for, said and did besides showing itself."""

    def __init__(self, browser: Browser, url: str, *, width: int = 1280, **options: object) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        self.requests: list[str] = []
        self.answers: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfinished", lambda request: self.answers.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.goto(url)

    def check(self, url: str) -> None:
        assert self.requests == [url]
        assert self.complaints == []
        self.page.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_shows_from_disk_without_a_request_or_a_complaint(
    browser: Browser, output: Path, width: int, scheme: str
) -> None:
    url = (output / REPORT_KEY).as_uri()
    watched = Watched(browser, url, width=width, color_scheme=scheme)
    page = watched.page
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground.strip("rgb()").split(","))) < 200) == (scheme == "dark")
    bar = page.locator("#work svg path[fill='var(--plain)']").first
    assert bar.evaluate("node => getComputedStyle(node).fill").startswith("rgb(")
    drawn = [svg for svg in page.locator("svg").all() if svg.is_visible()]
    assert len(drawn) == 9
    for svg in drawn:
        box = svg.bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
        assert box["height"] > 30
    if folder := os.environ.get("MAGPIE_RAY_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"report-{width}-{scheme}.png", full_page=True)
    watched.check(url)


def test_it_shows_through_a_presigned_url_too(browser: Browser, url: str) -> None:
    watched = Watched(browser, url)
    assert watched.page.locator("h1").is_visible()
    watched.check(url)


def test_conversations_are_paged_by_mouse_and_keyboard(browser: Browser, url: str) -> None:
    watched = Watched(browser, url)
    page = watched.page
    rows, place = page.locator("#conversations article"), page.locator("#conversations .place")
    assert rows.count() == 50

    def shown() -> list[int]:
        return [index for index in range(50) if rows.nth(index).is_visible()]

    assert (shown(), place.inner_text()) == ([0], "1 of 50")
    page.locator("#conversations").get_by_role("button", name="Next").click()
    assert (shown(), place.inner_text()) == ([1], "2 of 50")
    page.keyboard.press("ArrowRight")  # the button has the focus
    assert shown() == [2]
    page.locator("#conversations .pager").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert (shown(), place.inner_text()) == ([49], "50 of 50")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the first button: previous
    assert shown() == [48]
    watched.check(url)


def test_conversations_are_found_by_their_text_and_their_prompt(browser: Browser, url: str) -> None:
    watched = Watched(browser, url)
    section = watched.page.locator("#conversations")
    place, search, prompt = (section.locator(css) for css in (".place", "input", "select[data-by=prompt]"))
    names = section.locator("h3").evaluate_all("all => all.map(h => h.textContent.split(' · ')[1])")
    keys = sorted(set(names))
    assert prompt.locator("option").all_inner_texts() == ["any prompt", *keys]
    prompt.select_option(keys[0])
    assert place.inner_text() == f"1 of {names.count(keys[0])}"
    assert keys[0] in section.locator("article:visible h3").inner_text()
    prompt.select_option("any prompt")
    heading = section.locator("h3").nth(7).text_content() or ""
    search.fill(heading.upper().split(" · ")[0])
    found = section.locator("article:visible")
    assert found.count() == 1
    search.fill("no row says this")
    assert (found.count(), place.inner_text()) == (0, "none of 50")
    search.press("ArrowLeft")  # moves in the text
    search.fill("")
    assert place.inner_text() == "1 of 50"
    watched.check(url)


def test_rejected_messages_are_found_by_their_reason(browser: Browser, url: str) -> None:
    watched = Watched(browser, url)
    section = watched.page.locator("#rejected")
    section.locator("summary", has_text="Examples of rejected messages").click()
    reason = section.locator("select[data-by=reason]")
    options = reason.locator("option").all_inner_texts()
    assert len(options) > 2
    for name in options[1:]:
        reason.select_option(name)
        assert section.locator("article:visible h3").inner_text().startswith(f"{name} · ")
    watched.check(url)


def test_colours_can_be_chosen(browser: Browser, url: str) -> None:
    watched = Watched(browser, url, color_scheme="light")
    page, button = watched.page, watched.page.locator("#theme")

    def is_dark() -> bool:
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, ground.strip("rgb()").split(","))) < 200

    seen = []
    for _ in range(3):
        button.focus()
        page.keyboard.press("Space")
        seen.append((button.inner_text(), is_dark()))
    assert seen == [("Colours: light", False), ("Colours: dark", True), ("Colours: system", False)]
    watched.check(url)


def test_hostile_text_is_shown_and_does_nothing(browser: Browser, url: str) -> None:
    watched = Watched(browser, url)
    page = watched.page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    text = page.locator("body").evaluate("node => node.textContent")
    for hostile in HOSTILE[:4]:
        assert hostile in text
    assert page.locator("script").count() == 1
    assert page.locator("img, iframe, object, embed, form, base").count() == 0
    watched.check(url)


def test_what_escaping_might_miss_the_policy_stops(browser: Browser, output: Path, tmp_path: Path) -> None:
    page = (output / REPORT_KEY).read_text()
    bad = "<script>alert(1)</script><img src=x onerror=alert(2)><b style='color:red' onclick=alert(3)>b</b>"
    broken = tmp_path / "broken.html"
    broken.write_text(page.replace("<main>", f"<main>{bad}", 1))
    watched = Watched(browser, broken.as_uri())
    watched.page.locator("main > b").click()
    assert watched.answers == [broken.as_uri()]
    assert len(watched.complaints) >= 4
    assert all("violates the following Content Security Policy" in told for told in watched.complaints)
    watched.page.close()


def test_without_javascript_everything_is_there(browser: Browser, url: str) -> None:
    watched = Watched(browser, url, java_script_enabled=False)
    page = watched.page
    assert page.locator("#conversations article").last.is_visible()
    assert not page.locator("#conversations .controls").is_visible()
    assert not page.locator("#theme").is_visible()
    page.locator("#words summary").first.click()
    assert page.locator("#words table").first.is_visible()
    watched.check(url)


def test_everything_can_be_reached_by_keyboard(browser: Browser, url: str) -> None:
    watched = Watched(browser, url)
    page = watched.page
    wanted = page.evaluate(
        "[...document.querySelectorAll('a[href], button, summary, input, select, [tabindex=\"0\"]')]"
        ".filter(node => node.checkVisibility()).length"
    )
    reached = set()
    for _ in range(3 * wanted):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "[...document.querySelectorAll('a[href], button, summary, input, select, [tabindex=\"0\"]')]"
                ".indexOf(document.activeElement)"
            )
        )
    assert len(reached - {-1}) == wanted
    watched.check(url)
