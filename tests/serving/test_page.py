from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.serving.page_server import documents, embed, points, serving

sync_api = pytest.importorskip("playwright.sync_api", reason="the page's tests drive a browser: pip install playwright")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("the page's tests drive a browser: apt-get install chromium", allow_module_level=True)
expect = sync_api.expect
pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from tests.serving.page_server import PageServer

ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
DESKTOP = {"width": 1280, "height": 860}
BICYCLE = documents()[4]
INERT = next(document for document in documents() if "<img" in document["text"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def running() -> Iterator[PageServer]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running) -> PageServer:
    running.reset()
    return running


@pytest.fixture
def page(browser, server) -> Iterator[Page]:
    """A page that may ask nobody but the server, and whose console must stay empty but for answers of 4xx."""
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.set_default_timeout(5000)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    assert [text for text in said if "the server responded with a status of 4" not in text] == []
    assert [url for url in asked if not url.startswith((server.url, "data:"))] == []


def opened(page: Page, server: PageServer, view: str = "") -> None:
    page.goto(server.url + view)
    page.wait_for_selector("#facts li")


def at(page: Page, point: dict[str, Any]) -> tuple[float, float]:
    """Where a point of the map is in the window, before any zoom."""
    box = page.locator("#canvas").bounding_box()
    places = np.array([(other["x"], -other["y"]) for other in points()])
    least, most = places.min(0), places.max(0)
    unit = 0.92 * min(np.array([box["width"], box["height"]]) / (most - least))
    x, y = ((point["x"], -point["y"]) - (least + most) / 2) * unit
    return box["x"] + box["width"] / 2 + x, box["y"] + box["height"] / 2 + y


def luminance(colour: list[float]) -> float:
    """Relative luminance of red, green and blue from 0 to 255 (WCAG 2.2)."""
    parts = [part / 255 for part in colour[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


CONTRASTS = """selector => [...document.querySelectorAll(selector)].filter(node => node.offsetParent).map(node => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = colour => {
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  let ground = node;
  while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
  return [node.textContent, rgb(getComputedStyle(node).color), rgb(getComputedStyle(ground).backgroundColor)];
})"""


def poor_contrasts(page: Page, selector: str) -> list[str]:
    """Texts below the 4.5 to 1 of WCAG AA."""
    poor = []
    for text, ink, ground in page.evaluate(CONTRASTS, selector):
        darker, lighter = sorted((luminance(ink), luminance(ground)))
        if (lighter + 0.05) / (darker + 0.05) < 4.5:
            poor.append(text)
    return poor


def test_typing_shows_hits_with_the_best_sentence_marked_after_an_emoji(page, server):
    opened(page, server)
    page.locator("#query").press_sequentially("check the brakes of my bicycle", delay=5)
    first = page.locator(".hit").first
    expect(first.locator(".source span").first).to_have_text(BICYCLE["id"])
    expect(first.locator(".passage")).to_have_text(BICYCLE["text"])
    expect(first.locator("mark")).to_have_text("Then check both brakes.")
    expect(first.locator(".chips")).to_contain_text("cycling")
    expect(page.locator("#search-status")).to_have_text(re.compile(r"^10 results in \d+ ms$"))
    assert len(server.bodies("/search")) < 6, "a request for every letter"
    page.fill("#query", "nothing")
    expect(page.locator("#search-empty")).to_contain_text("Nothing found")


def test_a_stale_answer_never_overwrites_a_newer_one(page, server):
    server.delays["bread"] = 0.8
    opened(page, server)
    page.fill("#query", "bread")
    page.wait_for_timeout(300)
    page.fill("#query", "comets")
    expect(page.locator(".hit").first).to_contain_text("comet")
    page.wait_for_timeout(700)
    expect(page.locator(".hit").first).to_contain_text("comet")
    assert [body["query"] for body in server.bodies("/search")] == ["bread", "comets"]


def test_filters_hybrid_and_number_of_hits_are_sent_as_json_values(page, server):
    opened(page, server)
    page.fill("#query", "price")
    page.select_option("[data-field=section]", label="cooking")
    page.select_option("[data-field=year]", label="2023")
    page.select_option("#count", "5")
    page.check("#hybrid")
    expect(page.locator(".hit")).to_have_count(1)
    expected = {"query": "price", "k": 5, "hybrid": True, "filter": {"section": "cooking", "year": 2023}}
    expect(page.locator("#hits[aria-busy]")).to_have_count(0)
    assert server.bodies("/search")[-1] == expected
    page.select_option("[data-field=section]", "")
    page.select_option("[data-field=year]", "")
    expect(page.locator(".hit")).to_have_count(5)
    assert "filter" not in server.bodies("/search")[-1]


def test_markup_in_a_passage_stays_text(page, server):
    opened(page, server)
    page.fill("#query", "sow hardy seeds in spring")
    expect(page.locator(".passage", has_text="onerror")).to_have_text(INERT["text"])
    page.goto(server.url + "#playground")
    page.fill("#sentences", "<img src=x onerror='document.title=1'>\n<b>two</b>")
    expect(page.locator("#pair")).to_contain_text("<b>two</b>")
    assert page.locator("img, #pair b").count() == 0
    assert page.title() != "1"


def first_hit(page: Page, server: PageServer, **metadata: Any) -> Any:
    """The hit of the bicycle document, with more metadata."""
    server.metadata = {BICYCLE["id"]: metadata}
    opened(page, server)
    page.fill("#query", BICYCLE["text"])
    expect(page.locator(".hit .passage").first).to_have_text(BICYCLE["text"])
    return page.locator(".hit").first


def test_a_hit_is_headed_by_its_documents_title_which_links_to_its_address(page, server):
    hit = first_hit(page, server, Title=" Looking after <b>bicycles</b> ", url='https://example.org/a b?c=1&d="2"')
    expect(hit.locator("h3")).to_have_text("Looking after <b>bicycles</b>")
    link = hit.locator("h3 a")
    expect(link).to_have_attribute("href", "https://example.org/a%20b?c=1&d=%222%22")
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    expect(hit.locator(".source span").first).to_have_text(BICYCLE["id"])
    assert hit.locator("dt").all_text_contents() == ["section", "year"]
    assert page.locator(".hit b").count() == 0
    expect(page.locator("h3", has_text=documents()[0]["id"])).to_have_count(0)


@pytest.mark.parametrize(
    ("metadata", "heading"),
    [
        ({"path": "guides/bikes.md"}, "guides/bikes.md"),
        ({"subject": "Bikes", "path": "guides/bikes.md"}, "Bikes"),
        ({"heading": "Care", "subject": "Bikes"}, "Care"),
        ({"title": " ", "name": "Bikes"}, "Bikes"),
        ({"title": 1984}, "1984"),
        ({"title": "<img src=x onerror=document.title=1>"}, "<img src=x onerror=document.title=1>"),
    ],
)
def test_the_best_known_field_is_the_heading_and_stays_text(page, server, metadata, heading):
    hit = first_hit(page, server, **metadata)
    expect(hit.locator("h3")).to_have_text(heading)
    assert page.locator("img, .hit a").count() == 0
    assert page.title() != "1"


@pytest.mark.parametrize(
    "address",
    [
        "javascript:document.title=1",
        " JavaScript:document.title=1",
        "java\nscript:document.title=1",
        "data:text/html,<script>document.title=1</script>",
        "file:///etc/passwd",
        "//example.org",
        "/logout",
        '"><script>document.title=1</script>',
        "",
        7,
        ["https://example.org"],
        {"href": "https://example.org"},
        None,
    ],
)
def test_what_is_no_address_of_the_web_stays_text(page, server, address):
    hit = first_hit(page, server, link=address)
    assert page.locator(".hit a, .hit script, .hit h3").count() == 0
    expect(hit.locator(".source span").first).to_have_text(BICYCLE["id"])
    expect(hit.locator("dt").last).to_have_text("link")


def test_a_hit_without_a_title_links_its_id_with_the_first_address_that_is_one(page, server):
    hit = first_hit(page, server, url="javascript:alert(1)", href="http://example.org/")
    expect(hit.locator(".source a")).to_have_attribute("href", "http://example.org/")
    expect(hit.locator(".source a")).to_have_text(BICYCLE["id"])
    expect(hit.locator(".chips")).to_contain_text("javascript:alert(1)")


def test_a_field_of_one_document_a_value_is_no_filter_and_no_colour(page, server):
    server.unique = {"title": [f"Title {number}" for number in range(20)]}
    opened(page, server)
    expect(page.locator("[data-field]")).to_have_count(2)
    expect(page.locator("[data-field=title]")).to_have_count(0)
    page.click("#map-tab")
    expect(page.locator("#colour option")).to_have_text(["none", "section", "year"])


def test_401_asks_for_the_key_until_it_is_right(page, server):
    server.key = "right"
    page.goto(server.url)
    page.fill("#key", "wrong")
    page.click("text=Continue")
    expect(page.locator("#key-note")).to_have_text("That key was not accepted.")
    page.fill("#key", "right")
    page.keyboard.press("Enter")
    page.fill("#query", "bread")
    expect(page.locator(".hit").first).to_contain_text("Bread")
    page.reload()
    expect(page.locator("#facts")).to_contain_text("24 documents")
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 1]


def test_a_key_that_is_not_given_is_a_message_and_can_be_given_later(page, server):
    server.key = "right"
    page.goto(server.url)
    page.click("#key-cancel")
    expect(page.locator("#notice")).to_contain_text("asks for an API key")
    page.click("text=Try again")
    expect(page.locator("#key-dialog")).to_be_visible()


def test_429_waits_and_tries_again(page, server):
    opened(page, server)
    server.busy = 1
    page.fill("#query", "bread")
    expect(page.locator("#search-status")).to_contain_text("busy, retrying in 1 s")
    expect(page.locator(".hit").first).to_contain_text("Bread")
    assert len(server.bodies("/search")) == 2


def test_an_error_is_shown_in_the_servers_words(page, server):
    opened(page, server)
    page.fill("#query", "broken")
    expect(page.locator("#hits [role=alert]")).to_contain_text("The query is broken.")
    page.fill("#query", "bread")
    expect(page.locator(".hit").first).to_contain_text("Bread")
    expect(page.locator("[role=alert]")).to_have_count(0)


def test_the_playground_shows_dot_products_and_names_the_nearest_two(page, server):
    opened(page, server, "#playground")
    sentences = ["A child plays.", "A kid runs.", "Shares fell.", "🚲 Oil the chain."]
    page.fill("#sentences", "\n\n".join(sentences))
    cells = page.locator("#heat tbody td")
    expect(cells).to_have_count(16)
    embeddings = np.array([embed(sentence) for sentence in sentences])
    expected = [f"{value:.2f}" for value in (embeddings @ embeddings.T).ravel()]
    assert cells.all_text_contents() == expected
    expect(page.locator("#pair")).to_contain_text("Most alike: A child plays. and A kid runs.")
    page.fill("#sentences", "one")
    expect(page.locator("#pair")).to_contain_text("at least two")
    expect(cells).to_have_count(0)
    page.fill("#sentences", "\n".join(f"sentence {number}" for number in range(25)))
    expect(page.locator("#heat tbody tr")).to_have_count(20)
    expect(page.locator("#pair")).to_contain_text("Only the first 20")


def test_the_map_reads_a_point_under_the_mouse_and_shows_its_neighbours(page, server):
    opened(page, server, "#map")
    expect(page.locator("#map-status")).to_contain_text("240 passages")
    point = max(points(), key=lambda point: point["x"])
    page.mouse.move(*at(page, point))
    expect(page.locator("#tip span")).to_have_text(point["text"])
    page.mouse.click(*at(page, point))
    expect(page.locator("#selected .passage")).to_have_text(point["text"])
    expect(page.locator("#neighbours li")).to_have_count(10)
    assert server.bodies("/search") == [{"query": point["text"], "k": 11}]
    page.locator("#neighbours button").first.click()
    expect(page.locator("#selected .passage")).not_to_have_text(point["text"])
    page.select_option("#colour", "section")
    expect(page.locator("#legend li")).to_have_count(6)


def test_the_map_zooms_and_pans_and_fits_again(page, server):
    opened(page, server, "#map")
    expect(page.locator("#map-status")).to_contain_text("240 passages")
    point = max(points(), key=lambda point: point["x"])
    place = at(page, point)
    page.mouse.move(*place)
    page.mouse.wheel(0, -400)
    page.mouse.move(place[0] + 1, place[1])
    expect(page.locator("#tip span")).to_have_text(point["text"])
    page.mouse.down()
    page.mouse.move(place[0] - 150, place[1] + 60, steps=4)
    page.mouse.up()
    expect(page.locator("#selected .passage")).to_have_count(0)
    page.mouse.move(place[0] - 151, place[1] + 60)
    expect(page.locator("#tip span")).to_have_text(point["text"])
    page.click("#zoom-fit")
    page.mouse.move(*place)
    expect(page.locator("#tip span")).to_have_text(point["text"])


def test_the_map_works_from_the_keyboard(page, server):
    opened(page, server, "#map")
    expect(page.locator("#map-status")).to_contain_text("240 passages")
    page.focus("#colour")
    page.keyboard.press("Tab")
    first = page.locator("#map-spoken").text_content()
    assert first
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#map-spoken")).not_to_have_text(first)
    expect(page.locator("#tip")).to_be_visible()
    spoken = page.locator("#map-spoken").text_content()
    page.keyboard.press("Enter")
    expect(page.locator("#neighbours li")).to_have_count(10)
    assert spoken.endswith(page.locator("#selected .passage").text_content())
    page.keyboard.press("Escape")
    expect(page.locator("#neighbours li")).to_have_count(0)


def test_the_map_follows_the_window(page, server):
    opened(page, server, "#map")
    expect(page.locator("#map-status")).to_contain_text("240 passages")
    page.set_viewport_size({"width": 700, "height": 700})
    expect(page.locator("#canvas")).to_have_js_property("width", page.evaluate("canvas.clientWidth"))
    point = min(points(), key=lambda point: point["x"])
    page.mouse.move(*at(page, point))
    expect(page.locator("#tip span")).to_have_text(point["text"])


def test_tabs_follow_the_arrow_keys_and_the_address(page, server):
    opened(page, server)
    page.focus("#search-tab")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#playground-panel")).to_be_visible()
    expect(page.locator("#playground-tab")).to_be_focused()
    expect(page.locator("#playground-tab")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("End")
    expect(page.locator("#map-panel")).to_be_visible()
    page.go_back()
    expect(page.locator("#playground-panel")).to_be_visible()


def test_without_an_index_the_playground_opens_and_the_others_say_what_to_do(page, server):
    server.indexed = False
    opened(page, server)
    expect(page.locator("#playground-panel")).to_be_visible()
    for tab in ("#search", "#map"):
        page.click(f"{tab}-tab")
        expect(page.locator(f"{tab}-panel code").first).to_have_text("distilface index corpus.txt my-index")
        expect(page.locator(f"{tab}-panel code").last).to_have_text("distilface serve --index my-index")
    assert {path for path, _ in server.received} == {"/info", "/v1/embeddings"}


def test_a_chosen_theme_is_remembered(page, server):
    def ground() -> str:
        return page.evaluate("getComputedStyle(document.documentElement).backgroundColor")

    page.emulate_media(color_scheme="dark")
    opened(page, server)
    dark = ground()
    page.get_by_role("button", name="Use the light theme").click()
    assert ground() == "rgb(255, 255, 255)"
    page.reload()
    assert ground() == "rgb(255, 255, 255)"
    page.get_by_role("button", name="Use the dark theme").click()
    assert ground() == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_and_nothing_is_wider_than_a_phone(page, server, scheme):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": 375, "height": 740})
    opened(page, server)
    page.fill("#query", "bread")
    page.wait_for_selector(".hit")
    assert poor_contrasts(page, "a, h2, .source span, .passage, mark, dt, dd, .pill span, .status, #facts li") == []
    ramp = "() => document.querySelectorAll('#heat td').forEach((td, i) => td.style.setProperty('--heat', `${i * 3}%`))"
    for view, ready in (("search", ".hit"), ("playground", "#heat td"), ("map", "#colour option")):
        page.click(f"#{view}-tab")
        page.wait_for_selector(ready, state="attached")
        assert page.evaluate("document.documentElement.scrollWidth") == 375, view
        if view == "playground":
            page.evaluate(ramp)
            assert poor_contrasts(page, "#heat td, #heat th, .lead, .scale") == []
