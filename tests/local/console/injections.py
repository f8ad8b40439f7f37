r"""Texts that a page must only display, and what happens if it does anything else with them.

A text belongs to a class. Its class names the hole through which it has an effect: a way in which a
page could put a text into its source without escaping. `holes` has all of them, and each text is
tried with its hole, so that none of them is harmless by mistake. Texts without a hole are only hard
to display.

`effects` returns what a page shows of an effect.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Error, Frame, Page

from tests.local.console.chromium import incidents, settle

HOST = "injected.invalid"
"""No machine has this name (RFC 6761)."""
EVALUATED = "injected-evaluated"
"""What templates make of the texts that ask for it; no text contains it."""
_CODE = ("alert(/@id/)", "injected=@n", "fetch(`@url`)")
"""Without quotes, so that the code fits into every attribute."""


@dataclass(frozen=True)
class Injection:
    """A text that nobody may mistake for anything else.

    Attributes:
        group: Its class.
        number: Its number among all texts, which its effects show.
        text: The text; may contain lone surrogates, which only escapes of JSON can carry.
        hole: Name of the hole through which it has an effect; empty if it is only hard to display.
    """

    group: str
    number: int
    text: str
    hole: str

    @property
    def name(self) -> str:
        """Its class and number, for messages."""
        return f"{self.group} {self.number}"

    @property
    def needs_json(self) -> bool:
        """Whether the text cannot be encoded, except by escapes of JSON."""
        return any("\ud800" <= character <= "\udfff" for character in self.text)


def _script_tags() -> Iterator[str]:
    names = ["script", "SCRIPT", "ScRiPt", "script ", "script\n", "script\t", "script\f", "script/",
             "script/x", "script id=@id", "script type=module", "script type=text/javascript",
             "script language=javascript", "script charset=utf-8", "script x='>'"]  # fmt: skip
    for name in names:
        yield f"<{name}>@js</script>"
    yield "<script>@js</SCRIPT\n>"
    yield "<script>@js</script x>"
    yield "<<script>@js//<</script>"
    yield "<script><!--\n@js\n--></script>"
    yield "</main></p><script>@js</script>"
    yield "<svg><script>@js</script></svg>"
    yield "<svg><script>&#97;lert&#40;/@id/&#41;</script></svg>"
    yield "<math><mtext><script>@js</script></mtext></math>"
    for source in ("@url", "//@host/@n.js", "'@url'", "\\\\@host/@n", "data:text/javascript,@js"):
        yield f"<script src={source}></script>"
    yield "<script>import(`@url`)</script>"


def _event_handlers() -> Iterator[str]:
    yield from (
        "<img src=x onerror=@js>",
        "<IMG SRC=x ONERROR=@js>",
        "<img/src='x'/onerror=@js>",
        "<img\nsrc=x\nonerror\n=\n@js>",
        "<img src=x onerror='@js'>",
        '<img src=x onerror="@js">',
        "<img src=x onerror=@js//",
        "<img src=x one\x00rror=@js onerror=@js>",
        "<image src=x onerror=@js>",
        "<body onpageshow=@js>",
        "<audio src=x onerror=@js></audio>",
        "<video><source onerror=@js src=x></video>",
        "<details open ontoggle=@js>text</details>",
        "<input autofocus onfocus=@js>",
        "<select autofocus onfocus=@js></select>",
        "<textarea autofocus onfocus=@js></textarea>",
        "<button autofocus onfocus=@js>text</button>",
        "<p tabindex=1 autofocus onfocus=@js>text",
        "<a href=# autofocus onfocus=@js>text</a>",
        "<object data=x onerror=@js></object>",
        "<link rel=stylesheet href=x onerror=@js>",
        "<style onload=@js></style>",
        "<style>@keyframes injected{}</style><p style=animation-name:injected onanimationstart=@js>",
        "<p onpointerenter=@js>text",
        "<p onmouseover=@js style=position:fixed;inset:0>text",
        "<p onclick=@js id=@id>text",
        "<p contenteditable onbeforeinput=@js>text",
        "<dialog open onclose=@js id=@id>text</dialog>",
    )


def _foreign_markup() -> Iterator[str]:
    yield from (
        "<svg onload=@js>",
        "<svg/onload=@js>",
        "<svg id=@id><g onload=@js></g></svg>",
        "<svg><image href=@url /></svg>",
        "<svg><animate onbegin=@js attributeName=x dur=1s></svg>",
        "<svg><set onbegin=@js attributeName=x dur=1s></svg>",
        "<svg><a href=javascript:@js><text y=20>text</text></a></svg>",
        "<svg><a xlink:href=javascript:@js><text y=20>text</text></a></svg>",
        "<svg><foreignObject><img src=x onerror=@js></foreignObject></svg>",
        "<svg><foreignObject><iframe srcdoc='<script>@js</script>'></iframe></foreignObject></svg>",
        "<svg><desc><img src=x onerror=@js></desc></svg>",
        "<svg><title><img src=x onerror=@js></title></svg>",
        "<svg><style><img src=x onerror=@js></style></svg>",
        "<svg></p><style><a title='</style><img src=x onerror=@js>'>",
        "<math><a href=javascript:@js>text</a></math>",
        "<math><annotation-xml encoding=text/html><img src=x onerror=@js></annotation-xml></math>",
        "<math><mtext><img src=x onerror=@js></mtext></math>",
        "<math><mtext><table><mglyph><style></math><img src=x onerror=@js>",
        "<math><mi id=@id>x</mi></math>",
        "<svg><use href=#@id /></svg><svg><defs><g id=@id><rect width=9 height=9 /></g></defs></svg>",
    )


def _documents() -> Iterator[str]:
    yield from (
        "<iframe src=@url></iframe>",
        "<iframe src=javascript:@js></iframe>",
        "<iframe src='data:text/html,<script>@js</script>'></iframe>",
        "<iframe srcdoc='<script>parent.injected=@n</script>'></iframe>",
        "<iframe srcdoc='&lt;img src=x onerror=@js&gt;'></iframe>",
        "<iframe sandbox=allow-scripts srcdoc='<script>fetch(`@url`)</script>'></iframe>",
        "<iframe name=@id id=@id></iframe>",
        "<object data=@url></object>",
        "<object data='data:text/html,<script>@js</script>'></object>",
        "<embed src=@url>",
        "<embed src='data:text/html,<script>@js</script>'>",
        "<base href=@url><img src=x>",
        "<meta http-equiv=refresh content='0;url=@url'>",
        "<meta http-equiv=refresh content=0;@url>",
        "<META HTTP-EQUIV=Refresh CONTENT='0; URL=@url'>",
        "<link rel=stylesheet href=@url>",
        "<link rel=preload as=image href=@url>",
        "<link rel=prefetch href=@url>",
        "<link rel=icon href=@url>",
        "<form action=@url><button autofocus>text</button></form>",
        "<form id=@id></form><button form=@id formaction=@url>text</button>",
        "<form><button formaction=javascript:@js>text</button></form>",
        "<form action=javascript:@js><input type=submit></form>",
        "<isindex id=@id action=@url>",
        "<img src=@url>",
        "<img srcset='@url 1x'>",
        "<picture><source srcset=@url><img></picture>",
        "<video src=@url></video>",
        "<video poster=@url></video>",
        "<audio src=@url></audio>",
        "<input type=image src=@url>",
        "<table background=@url><tr><td id=@id>text</table>",
        "<a href=@url ping=@url>text</a>",
        "<a href=javascript:@js>text</a>",
        "<map><area href=javascript:@js></map>",
        "<portal src=@url id=@id></portal>",
        "<template shadowrootmode=open id=@id></template><p id=@id>text",
        "<plaintext id=@id>",
        "<xmp id=@id>text</xmp>",
        "<marquee id=@id>text</marquee>",
        "<h1 id=@id>text</h1>",
        "<a id=@id name=body>text</a>",
        "<slot id=@id></slot>",
    )


def _styles() -> Iterator[str]:
    yield from (
        "<style>body{background:url(@url)}</style>",
        "<style>@import '@url';</style>",
        "<STYLE>@import url(@url);</STYLE>",
        "<style>@font-face{font-family:injected;src:url(@url)}body{font-family:injected}</style>",
        "<style>input[value^=a]{background:url(@url)}</style><input id=@id value=a>",
        "<p id=@id style=background:url(@url)>text",
        "<p id=@id style='position:fixed;inset:0;z-index:99;background:red'>text",
        "<p id=@id style=width:9999px>text",
        "<p id=@id style=margin-left:9999px>text",
        "<style>main{width:9999px}/*injected*/</style>",
        "<link rel=stylesheet href='data:text/css,body{background:url(@url)}'>",
    )


def _after_quote(closing: str) -> Iterator[str]:
    """Breakouts of an attribute that this text closes."""
    for separator in (" ", "\n", "\t", "\f", "/"):
        yield f"{closing}{separator}autofocus onfocus=@js data-injected={closing}"
    yield f"{closing}onfocus=@js autofocus data-injected={closing}"
    yield f"{closing}><i id=@id>text</i>"
    yield f"{closing}><script>@js</script>"
    yield f"{closing}/><img src=x onerror=@js>"
    yield f"{closing}></textarea></select></title></style><svg onload=@js>"
    yield f"{closing} data-injected=@n hx-get=@url x={closing}"
    yield f"{closing} style=background:url(@url) type=image x={closing}"
    yield f"{closing} type=image src=@url x={closing}"


def _closing_tags() -> Iterator[str]:
    """Breakouts of the elements whose content is text."""
    for name in ("title", "TITLE", "title ", "title\n", "title/", "title x"):
        yield f"</{name}><img src=x onerror=@js>"
    yield "</title><script>@js</script>"
    yield "</title/<i id=@id>><i id=@id>text</i>"


def _comments() -> Iterator[str]:
    for end in ("-->", "--!>", "<!-->-->", "--><!--x-->", "]]>-->", "><!--->-->", "-- >-->"):
        yield f"{end}<img src=x onerror=@js>"
    yield "--><i id=@id>text</i><!--"


def _character_data() -> Iterator[str]:
    yield "]]><img src=x onerror=@js>"
    yield "]]>]]><i id=@id>text</i>"
    yield "]]></title></svg><script>@js</script>"
    yield "]]><script>@js</script><![CDATA["


def _addresses() -> Iterator[str]:
    for scheme in ("javascript", "JAVASCRIPT", "JavaScript", "java\nscript", "java\tscript", "java\rscript",
                   " javascript", "\x01javascript", "\x1fjavascript", "\n\njavascript", "javascript\t"):  # fmt: skip
        yield f"{scheme}:@js"
    yield "javascript://%0a@js"
    yield "javascript:/*--></title></style>*/@js"
    yield "javascript:void(@js)"
    yield "javascript:%61lert(/@id/)"
    yield "data:text/html,<script>@js</script>"
    yield "data:text/html;charset=utf-8,%3Cscript%3Ealert(/@id/)%3C/script%3E"
    yield "DATA:image/svg+xml,<svg id=@id xmlns='http://www.w3.org/2000/svg' onload='@js'/>"
    yield from ("@url", "//@host/@n", "\\\\@host\\@n", "/\\@host/@n", "/\t/@host/@n", "https:@host/@n",
                    "http://user@@host/@n", "http:\\\\@host", "///@host/@n", "ftp://@host/@n")  # fmt: skip


def _htmx() -> Iterator[str]:
    for prefix in ("hx-", "data-hx-"):
        for method in ("get", "post", "put", "delete"):
            yield f"<i id=@id {prefix}{method}=@url {prefix}trigger=load>text</i>"
        yield f"<i id=@id {prefix}on:click=@js>text</i>"
        yield f"<i id=@id {prefix}on::load=@js>text</i>"
        yield f"<i id=@id {prefix}on--after-settle=@js>text</i>"
        yield f"<i id=@id {prefix}vals='js:x:@js' {prefix}get=/ {prefix}trigger=load>text</i>"
        yield f"<i id=@id {prefix}headers='js:x:@js' {prefix}get=/ {prefix}trigger=load>text</i>"
        yield f"<i id=@id {prefix}ext=sse sse-connect=@url sse-swap=message>text</i>"
        yield f"<i id=@id {prefix}swap-oob=innerHTML:body>text</i>"
        yield f"<i id=@id {prefix}trigger='load[@js]' {prefix}get=/>text</i>"
        yield f"<i id=@id {prefix}get=@url {prefix}target=body {prefix}trigger='every 1s'>text</i>"
    yield "<i id=@id hx-disable=false hx-include=* hx-post=@url hx-trigger=load>text</i>"
    yield "<i id=@id ws-connect=ws://@host/@n>text</i>"
    yield "<meta name=htmx-config content='{\"selfRequestsOnly\":false}' id=@id>"


def _templates() -> Iterator[str]:
    yield "{{ 'injected-' ~ 'evaluated' }}"
    yield "{{'injected-'+'evaluated'}}"
    yield "{{- 'injected-%s' % 'evaluated' -}}"
    yield "{% print('injected-' ~ 'evaluated') %}"
    yield "{% set x = 'evaluated' %}{{ 'injected-' ~ x }}"
    yield "{% for x in ['injected', '-', 'evaluated'] %}{{ x }}{% endfor %}"
    yield "{% if true %}injected-{% endif %}evaluated"
    yield "injected-{# comment #}evaluated"
    yield "{{ ['injected', 'evaluated']|join('-') }}"
    yield "{% raw %}injected-{% endraw %}evaluated"
    yield "{% macro x() %}injected-{% endmacro %}{{ x() }}evaluated"
    yield "{{ ('injected-' ~ ''.__class__.__name__)|replace('str', 'evaluated') }}"


def _script_strings() -> Iterator[str]:
    yield from (
        '";@js//',
        '"-@js-"',
        '"+@js+"',
        '";@js;"',
        '"\n@js//',
        '"};@js;//',
        '\\";@js//',
        "</script><script>@js</script>",
        "</SCRIPT ><img src=x onerror=@js>",
        "</script/x><svg onload=@js>",
        "<!--</script><i id=@id>text</i>",
        "</script\n><i id=@id>text</i>",
    )


def _json_blocks() -> Iterator[str]:
    yield "</script><script>@js</script>"
    yield "</ScRiPt/><img src=x onerror=@js>"
    yield '"}</script><i id=@id>text</i>'
    yield "<!--</script><i id=@id>text</i>-->"
    yield "\u2028</script><i id=@id>text</i>"


def _style_strings() -> Iterator[str]:
    yield '"} body{background:url(@url)} p{x:"'
    yield '";background:url(@url);x:"'
    yield "</style><script>@js</script>"
    yield "</STYLE\n><i id=@id>text</i>"
    yield '\n} body{background:url("@url")} p{'
    yield '"} main{width:9999px} p{x:"'


def _declarations() -> Iterator[str]:
    yield "red;background:url(@url)"
    yield "red;background:u\\72l(@url)"
    yield "red;background:url( '@url' )"
    yield "red;background-image:image-set('@url' 1x)"
    yield "red;list-style:url(@url);display:list-item"
    yield "red;width:9999px"
    yield "red;border-image:url(@url)"
    yield "red;/**/background/**/:/**/url(@url)"


def _event_streams() -> Iterator[str]:
    """Events of their own, in a stream that writes the text after `data: `."""
    event = "event: swap@endofline@data: <i id=@id>text</i>@endofline@@endofline@"
    for line_end in ("\n", "\r", "\r\n"):
        framed = event.replace("@endofline@", line_end)
        yield f"text{line_end}{line_end}{framed}"
        yield f"text{line_end}{framed}"
        yield f"text{line_end}id: @n{line_end}retry: 1{line_end}{line_end}{framed}"
        yield f"{line_end}: comment{line_end}{line_end}{framed}"
        yield f"text{line_end}data: text{line_end}{line_end}{framed}"
    yield "text\r\n\r" + event.replace("@endofline@", "\n")


def _filtered() -> Iterator[str]:
    """Texts that become tags when somebody deletes script tags once."""
    yield "<scr<script>ipt>@js</scr</script>ipt>"
    yield "<<script>img src=x onerror=@js>"
    yield "<i<script> id=@id>text</i>"
    yield "<im</script>g src=x onerror=@js>"


def _entities() -> Iterator[str]:
    """Markup that is escaped already, for pages that decode it once or twice."""
    markup = ("<img src=x onerror=@js>", "<i id=@id>text</i>", "<script>@js</script>")
    encoders: tuple[Callable[[str], str], ...] = (
        lambda text: text.replace("<", "&lt;").replace(">", "&gt;"),
        lambda text: text.replace("<", "&amp;lt;").replace(">", "&amp;gt;"),
        lambda text: text.replace("<", "&LT").replace(">", "&GT"),
        lambda text: text.replace("<", "&#60;").replace(">", "&#62;"),
        lambda text: text.replace("<", "&#x3c").replace(">", "&#x0003E;"),
        lambda text: quote(text, safe="@(){}"),
        lambda text: quote(quote(text, safe="@(){}"), safe="@(){}"),
        lambda text: text.replace("<", "\uff1c").replace(">", "\uff1e"),
        lambda text: text.replace("<", "\ufe64").replace(">", "\ufe65"),
    )
    for encode in encoders:
        yield from map(encode, markup)


def _wide_texts() -> Iterator[str]:
    for character in (
        "W",
        "\u4e00\u2060",
        "\u00a0",
        "_",
        "/\u2060",
        "\u202f",
        "\u0915",
        "&",
        "-\u2060",
    ):
        yield character * 3_000
    yield "https://example.com/" + "a" * 3_000
    yield "sq-" + "0123456789abcdef" * 200
    yield "\u202e" + "W" * 3_000
    yield "W\u200d" * 2_000
    yield "text " * 3 + "{" + '"a":' * 900 + "}"


def _hard_texts() -> Iterator[str]:
    controls = [
        chr(code) for code in (*range(9), 11, 12, *range(14, 32), 127, *range(0x80, 0xA0, 5))
    ]
    yield from (f"before{control}after" for control in controls)
    yield "".join(controls)
    bidi = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    yield from (f"allowed {mark}denied" for mark in bidi)
    yield "\u202e" * 200 + "allowed"
    yield "pay(\u2067amount\u2066=\u202e001\u202c)"
    yield "\u05d0\u05d1\u05d2 denied \u0627\u0644 allowed 123"
    yield from (
        f"de{mark}nied" for mark in "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u180e\u115f\u3164"
    )
    yield "\u200b" * 1_000
    yield from (
        base + mark * 300 for base, mark in zip("aZ\u0e01", "\u0301\u20dd\u0e49", strict=True)
    )
    yield "".join(letter + "\u0300\u0316\u0489" * 40 for letter in "towers")
    yield "\n" * 2_000 + "end"
    yield "line\r" * 500
    yield "\u2028line\u2029" * 200
    yield "\t" * 1_000 + "end"
    yield "a b " * 20_000
    yield from (
        "high \ud800 end",
        "low \udfff end",
        "\udc00\ud800 reversed",
        "\ud83d" * 50,
        "\ufffe\uffff\U0010ffff",
    )
    yield from (
        "d\u0435ni\u0435d",
        "\uff44enied",
        "\U0001d41denied",
        "\u0430llowed",
        "adm\u0131n",
        "\u1e9eS",
    )
    yield from (
        "\x1b[31mred\x1b[0m",
        "\x1b[2J\x1b[H",
        "\x1b]8;;http://@host\x07link\x1b\\",
        "\x9b31m",
        "\x1b]0;@id\x07",
    )
    yield from (
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f3f4\U000e0067\U000e0062\U000e007f",
        "\u263a\ufe0f\u20e3",
    )
    yield from (
        "\ue000\uf8ff\U000f0000",
        "\U000e0001\U000e0041\U000e0042",
        "\ufdd0\ufff9a\ufffab\ufffb",
    )
    yield from (
        "null",
        "None",
        "NaN",
        "undefined",
        "[object Object]",
        "__proto__",
        "constructor",
        "-0",
        "1e999",
        "",
    )


_CLASSES: tuple[tuple[str, str, Callable[[], Iterable[str]]], ...] = (
    ("script tag", "html", _script_tags),
    ("event handler", "html", _event_handlers),
    ("foreign markup", "html", _foreign_markup),
    ("document", "html", _documents),
    ("style", "html", _styles),
    ("htmx", "html", _htmx),
    ("double quote", "double-quoted attribute", lambda: _after_quote('"')),
    ("single quote", "single-quoted attribute", lambda: _after_quote("'")),
    ("no quote", "unquoted attribute", lambda: _after_quote("x")),
    ("closing tag", "title", _closing_tags),
    ("comment", "comment", _comments),
    ("character data", "character data", _character_data),
    ("address", "link", _addresses),
    ("template", "template", _templates),
    ("script string", "script", _script_strings),
    ("JSON block", "JSON block", _json_blocks),
    ("style string", "style sheet", _style_strings),
    ("declaration", "style attribute", _declarations),
    ("event stream", "event stream", _event_streams),
    ("filtered", "filter", _filtered),
    ("entities", "decoder", _entities),
    ("wide text", "narrow page", _wide_texts),
    ("hard text", "", _hard_texts),
)


def _corpus() -> Iterator[Injection]:
    number = 0
    for group, hole, templates in _CLASSES:
        for template in templates():
            text = template.replace("@js", _CODE[number % len(_CODE)])
            for placeholder, value in (
                ("@url", f"http://{HOST}/{number}"),
                ("@host", HOST),
                ("@id", f"injected-{number}"),
                ("@n", str(number)),
            ):
                text = text.replace(placeholder, value)
            yield Injection(group, number, text, hole)
            number += 1


CORPUS = tuple(_corpus())

_SCAN = """host => {
  const lines = [];
  if (typeof injected !== "undefined" && !(injected instanceof Node))
    lines.push(`variable: ${injected}`);
  if (new URL(document.baseURI).hostname === host) lines.push(`base: ${document.baseURI}`);
  if (document.documentElement?.textContent.includes("injected-evaluated"))
    lines.push("template: evaluated");
  const addresses = /^(href|src|action|formaction|data|poster|ping|background|xlink:href|(data-)?hx-.*)$/;
  const attacks = attribute => {
    const {name, value} = attribute;
    if (name.startsWith("data-injected")) return true;
    if (/^(on|(data-)?hx-on|srcdoc$|style$)/.test(name)) return /injected/.test(value);
    if (!addresses.test(name) || !value || !URL.canParse(value, document.baseURI)) return false;
    const url = new URL(value, document.baseURI);
    return url.hostname === host || /^(javascript|vbscript):/.test(url.protocol)
      || url.protocol === "data:" && /injected/.test(value);
  };
  for (const element of document.querySelectorAll("*")) {
    const name = element.localName;
    const isData = name === "script" && element.type === "application/json";
    if (/^injected-/.test(element.id)) lines.push(`element: ${name} ${element.id}`);
    if (/^(script|style)$/.test(name) && !isData && /injected/.test(element.textContent))
      lines.push(`code: ${name} ${element.textContent}`);
    for (const attribute of element.attributes)
      if (attacks(attribute)) lines.push(`attribute: ${name} ${attribute.name}=${attribute.value}`);
  }
  return lines;
}"""
_OVERFLOW = """() => {
  const {scrollWidth, clientWidth} = document.documentElement;
  if (scrollWidth <= clientWidth) return null;
  const range = document.createRange();
  const end = element => {
    range.selectNodeContents(element);
    return Math.max(element.getBoundingClientRect().right, range.getBoundingClientRect().right);
  };
  const ends = [...document.querySelectorAll("body *")].map(element => [element, end(element)]);
  const latest = Math.max(...ends.map(([, end]) => end));
  const widest = ends.findLast(([, end]) => end === latest)?.[0];  // the innermost one
  return `overflow: ${scrollWidth} px in ${clientWidth} px, at ${widest?.outerHTML.slice(0, 200)}`;
}"""


def effects(page: Page) -> list[str]:
    """What injections have done in a page; empty if it only displays them.

    These are dialogs, requests and code that ran, elements and attributes that a text has created,
    links that would run code, templates that were evaluated, and a page wider than its viewport.
    """
    settle(page)
    recorded = [
        str(incident)
        for incident in incidents(page)
        if incident.kind in ("dialog", "popup", "download", "crash", "foreign document")
        or (incident.kind in ("foreign request", "CSP violation") and HOST in incident.text)
    ]
    scanned = [line for frame in page.frames for line in _evaluate(frame, _SCAN, HOST) or ()]
    overflow = _evaluate(page.main_frame, _OVERFLOW)
    return [*recorded, *scanned, *([overflow] if overflow else [])]


def _evaluate(frame: Frame, function: str, argument: object = None) -> Any:
    """The result of a function in a frame, or nothing if the frame is being replaced."""
    try:
        return frame.evaluate(function, argument)
    except Error:
        return None
