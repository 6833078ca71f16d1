"""The built book in a browser: every page is whole, needs no network, and can be read by anyone.

Run by `make pages`, after `make book`. Debian's Chromium opens each page from a server on
localhost; whatever a page asks of another host is refused and counts as a failure.
"""

import functools
import http.server
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.pages

HTML = Path(__file__).resolve().parent.parent.parent / "_build" / "html"
FRONT = "index.html"  # leads on to the first page
PAGES = sorted(
    str(page.relative_to(HTML))
    for page in HTML.rglob("*.html")
    if "_static" not in page.parts and page != HTML / FRONT
)

# Errors on the console that are the theme's own, and harmless.
HARMLESS = (
    "THEBE_JS_URL",  # the theme loads its Thebe script twice; no page uses Thebe
    "Got invalid theme mode",  # a first visit has no stored choice of light or dark
)

# What a reader could stumble over, asked of the page itself. Each function returns its findings.
UNRENDERED_MATH = """() => {
  const found = [...document.querySelectorAll('.math')]
    .filter(node => !node.querySelector('mjx-container') && node.tagName !== 'MJX-CONTAINER')
    .map(node => node.textContent);
  document.querySelectorAll('mjx-merror, [data-mml-node="merror"], merror')
    .forEach(node => found.push('error in: ' + node.textContent));
  const article = document.querySelector('article') || document.body;
  const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (!node.parentElement.closest('pre, code, script, style, mjx-container')
        && /\\\\\\(|\\\\\\[|\\$\\$/.test(node.textContent)) found.push(node.textContent);
  }
  return found;
}"""
IMAGES_WITHOUT_ALT = """() => [...document.querySelectorAll('img')]
  .filter(image => !(image.getAttribute('alt') || '').trim())
  .map(image => image.outerHTML.slice(0, 200))"""
BROKEN_IMAGES = """() => [...document.querySelectorAll('img')]
  .filter(image => image.complete && image.naturalWidth === 0)
  .map(image => image.outerHTML.slice(0, 200))"""
BARRIERS = """() => {
  const found = [];
  const name = node => (node.getAttribute('aria-label') || node.title || node.textContent
    || node.querySelector('img')?.alt || '').trim();
  if (!document.documentElement.lang) found.push('no language');
  if (!document.title.trim()) found.push('no title');
  const article = document.querySelector('main article') || document.body;
  const levels = [...article.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(h => +h.tagName[1]);
  if (levels.filter(level => level === 1).length !== 1) found.push('not exactly one h1: ' + levels);
  levels.forEach((level, i) => {
    if (i && level > levels[i - 1] + 1) found.push('a heading level is skipped: ' + levels);
  });
  article.querySelectorAll('a[href]').forEach(link => {
    if (!name(link)) found.push('a link without words: ' + link.outerHTML.slice(0, 120));
  });
  document.querySelectorAll('button').forEach(button => {
    if (!name(button)) found.push('a button without words: ' + button.outerHTML.slice(0, 120));
  });
  article.querySelectorAll('input, select, canvas').forEach(node => {
    const label = node.getAttribute('aria-label') || node.closest('label')?.textContent;
    if (!label && node.getAttribute('aria-hidden') !== 'true') {
      found.push('a control without words: ' + node.outerHTML.slice(0, 120));
    }
  });
  article.querySelectorAll('table:not(.autosummary, .indextable)').forEach(table => {
    if (!table.querySelector('th')) found.push('a table without a head: ' + table.textContent);
  });
  // sphinx-exercise gives every exercise's body the same id; nothing points to it.
  const ids = [...article.querySelectorAll('[id]')].map(node => node.id)
    .filter(id => !['exercise-content', 'solution-content'].includes(id));
  new Set(ids.filter((id, i) => ids.indexOf(id) !== i))
    .forEach(id => found.push('an id used twice: ' + id));
  return found;
}"""
DIM_FIGURES = """() => {
  document.documentElement.dataset.theme = 'dark';
  return [...document.querySelectorAll('article img')].filter(image => {
    const style = getComputedStyle(image);
    return style.backgroundColor !== 'rgb(255, 255, 255)' || style.filter !== 'none';
  }).map(image => image.outerHTML.slice(0, 120));
}"""
WIDER_THAN_A_PHONE = """() => document.documentElement.scrollWidth > window.innerWidth
  ? [document.documentElement.scrollWidth + ' px wide'] : []"""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    """Where the built book is served."""
    handler = functools.partial(QuietHandler, directory=HTML)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module", params=PAGES)
def visit(request, browser, address):
    """One page, loaded and typeset, with what it asked for and complained about."""
    trouble = {"outside": [], "failed": [], "console": []}
    page = browser.new_page()

    def guard(route):
        if route.request.url.startswith(address):
            route.continue_()
        else:
            trouble["outside"].append(route.request.url)
            route.abort()

    def note_console(message):
        if message.type == "error" and not any(known in message.text for known in HARMLESS):
            trouble["console"].append(message.text)

    def note_error(error):
        if not any(known in str(error) for known in HARMLESS):
            trouble["console"].append(str(error))

    def note_response(response):
        if response.status >= 400:
            trouble["failed"].append(f"{response.status} {response.url}")

    page.route("**/*", guard)
    page.on("console", note_console)
    page.on("pageerror", note_error)
    page.on("response", note_response)
    page.on("requestfailed", lambda request: trouble["failed"].append(request.url))
    page.goto(f"{address}/{request.param}", wait_until="load")
    page.evaluate("async () => { await window.MathJax?.startup?.promise; }")
    page.wait_for_load_state("networkidle")
    yield page, trouble
    page.close()


def test_the_book_was_built():
    assert PAGES, "build it first: make book"


def test_the_front_door_leads_to_the_first_page(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/{FRONT}")
    page.wait_for_url("**/book/intro.html")
    assert page.locator("article h1").count() == 1
    page.close()


@pytest.mark.parametrize("kind", ["outside", "failed", "console"])
def test_nothing_goes_wrong_while_a_page_loads(visit, kind):
    """No request leaves this machine, none fails, and the console shows no error."""
    assert visit[1][kind] == []


def test_all_math_is_rendered(visit):
    assert visit[0].evaluate(UNRENDERED_MATH) == []


def test_every_image_loads_and_has_alt_text(visit):
    assert visit[0].evaluate(BROKEN_IMAGES) == []
    assert visit[0].evaluate(IMAGES_WITHOUT_ALT) == []


def test_page_has_no_barriers(visit):
    """A language, a title, one h1, headings in order, named links and buttons, headed tables."""
    assert visit[0].evaluate(BARRIERS) == []


def test_page_shows_no_path_of_the_machine(visit):
    assert str(HTML.parent.parent) not in visit[0].content()


def test_page_fits_a_phone(visit):
    visit[0].set_viewport_size({"width": 390, "height": 800})
    assert visit[0].evaluate(WIDER_THAN_A_PHONE) == []
    visit[0].set_viewport_size({"width": 1280, "height": 800})


def test_figures_keep_their_colours_in_dark_mode(visit):
    assert visit[0].evaluate(DIM_FIGURES) == []
