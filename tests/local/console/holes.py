"""Pages that put a text into their source without the escaping that its position needs."""

import html
import json
import re
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from urllib.parse import unquote

STRICT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
)


def page(body: str, *, head: str = "<title>Page</title>") -> str:
    """A document without faults around its body."""
    return f"<!doctype html><html lang=en><meta charset=utf-8>{head}<main>{body}</main></html>"


_LISTENER = """<script>
const events = new EventSource("/events");
events.addEventListener("message", event => { document.body.append(event.data); });
events.addEventListener("swap", event => { document.body.innerHTML = event.data; });
events.addEventListener("end", () => { events.close(); document.title = "End"; });
</script>"""


def event_stream(text: str) -> str:
    """A stream of one event that does not look at the lines of its text, and of its end."""
    return f"data: {text}\n\nevent: end\ndata: end\n\n"


def _deleting_script_tags(text: str) -> str:
    return page(text.replace("<script>", "").replace("</script>", ""))


def _decoded(text: str) -> str:
    for _ in range(2):
        text = unicodedata.normalize("NFKC", html.unescape(unquote(text)))
    return page(text)


def _template(text: str) -> str:
    """What Jinja makes of a text that somebody took for a template, in the forms of the corpus."""
    jinja2 = import_module("jinja2")  # not everyone has it
    return page(html.escape(jinja2.Template(text).render()))


HOLES: Mapping[str, Callable[[str], str]] = {
    "html": page,
    "double-quoted attribute": lambda text: page(f'<input value="{text}">'),
    "single-quoted attribute": lambda text: page(f"<input value='{text}'>"),
    "unquoted attribute": lambda text: page(f"<input value={text}>"),
    "title": lambda text: page("", head=f"<title>{text}</title>"),
    "comment": lambda text: page(f"<!-- {text} -->"),
    "character data": lambda text: page(f"<svg><title><![CDATA[{text}]]></title></svg>"),
    "link": lambda text: page(f'<a href="{html.escape(text)}">link</a>'),
    "template": _template,
    "script": lambda text: page(f'<script>const text = {{"x": "{text}"}};</script>'),
    "JSON block": lambda text: page(f"<script type=application/json>{json.dumps(text)}</script>"),
    "style sheet": lambda text: page(f'<style>p {{ content: "{text}" }}</style><p>text'),
    "style attribute": lambda text: page(f'<p style="color: {html.escape(text)}">text'),
    "event stream": lambda text: page(_LISTENER),  # noqa: ARG005  # the text is in the stream
    "filter": _deleting_script_tags,
    "decoder": _decoded,
    "narrow page": lambda text: page(f"<p>{html.escape(text)}</p>"),
}


class PageServer:
    """A server whose pages a test sets.

    Attributes:
        base_url: Its address.
        pages: The page of each path, or a text and its content type; other paths get 404.
        headers: Headers of all replies.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.pages: dict[str, str | tuple[str, str]] = {}
        self.headers: dict[str, str] = {}

    def show(self, text: str, *, policy: str = "") -> None:
        """Serve one page, with a Content-Security-Policy or without one."""
        # Chromium asks for the icon of some pages only; 404 would be an error in its console.
        self.pages = {"/": text, "/favicon.ico": ""}
        self.headers = {"Content-Security-Policy": policy} if policy else {}


@contextmanager
def page_server() -> Iterator[PageServer]:
    """Serve pages from a thread on a loopback address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = served.pages.get(re.sub(r"\?.*", "", self.path))
            text, content_type = content if isinstance(content, tuple) else (content, "text/html")
            body = (text or "").encode("utf-8", "surrogatepass")
            self.send_response(404 if text is None else 200)
            for name, value in served.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", f"{content_type}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = PageServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
