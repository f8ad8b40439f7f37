"""Who may see the console, and which requests of a browser are its own.

The console shows the conversations of all keys. So each request needs the console's token, which
`LocalServer.console_url` has, or a key that may see it (`ApiKey.console`). A browser gets a cookie
for either. Pages of other origins cannot read a reply (there is no CORS header), frame a page
(`frame-ancestors`), or send a form (`Origin`); a name that is rebound to this machine is refused
for its `Host`, as everywhere on the server (`auth.check_host`).
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

from starlette.requests import Request

from langchain_sequrity.local.keys import Keyring
from langchain_sequrity.local.refusals import refuse

PATH = "/console"
_COOKIE = "sequrity_console"  # and the port: browsers share cookies among the ports of a host
_SECONDS = 12 * 3600
_MOST_LOGINS = 1_000
_SAME_ORIGIN = ("same-origin", "none")
# Nothing is loaded from elsewhere, and no text of a page can become a script or a style.
SECURITY_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Not `no-referrer`: with it, browsers send the console's own forms with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Access:
    """The token of a console, and the browsers that are logged in.

    Args:
        keys: The keys of the server.
        seconds: How long a login lasts.

    Attributes:
        token: Opens the console. It is new for each server object.
    """

    def __init__(self, keys: Keyring, seconds: float = _SECONDS) -> None:
        self.token = secrets.token_urlsafe(24)
        self._keys = keys
        self._seconds = seconds
        self._lock = threading.Lock()
        # Of each login: when it ends, and the digest of its key, or an empty text.
        self._logins: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def check(self, request: Request) -> None:
        """Refuse a request that is not of the console's own pages, or of nobody who may see it.

        Raises:
            StatusError: 403 for another origin, 401 without a login.
        """
        check_origin(request)
        if not self.is_allowed(request):
            refuse(401, "Open the console with the URL that `LocalServer.console_url` returns.")

    def is_allowed(self, request: Request) -> bool:
        """Whether the request is of somebody who may see the console."""
        scheme, _, bearer = request.scope["by_name"].get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._secret_kind(bearer.strip()) is not None
        login = self._login(request)
        if login is None:
            return False
        key = login[1]
        return not key or self._keys.may_see_console(key)

    def log_in(self, secret: str) -> str:
        """Begin a login with the token or a key.

        Args:
            secret: What was entered.

        Returns:
            The value of the cookie, or an empty text if the secret is wrong.
        """
        digest = self._secret_kind(secret)
        if digest is None:
            return ""
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            self._logins[_digest(cookie)] = (time.monotonic() + self._seconds, digest)
            while len(self._logins) > _MOST_LOGINS:
                self._logins.popitem(last=False)
        return cookie

    def log_out(self, request: Request) -> None:
        """End the login of a request."""
        with self._lock:
            self._logins.pop(_digest(_cookie_of(request)), None)

    def _secret_kind(self, secret: str) -> str | None:
        """An empty text for the token, the digest of a key that may see the console, or `None`."""
        if hmac.compare_digest(secret.encode(), self.token.encode()):
            return ""
        key = self._keys.find(secret) if secret else None
        return key.digest if key is not None and key.console else None

    def _login(self, request: Request) -> tuple[float, str] | None:
        login = self._logins.get(_digest(_cookie_of(request)))
        return login if login is not None and login[0] > time.monotonic() else None


def cookie_header(request: Request, cookie: str) -> str:
    """The value of `Set-Cookie` for who sent a request; an empty cookie removes it."""
    is_secure = request.scope["scheme"] == "https"
    # Not `Strict`: a link in a notebook or a terminal is another site's.
    parts = [f"{_cookie_name(request)}={cookie}", f"Path={PATH}", "HttpOnly", "SameSite=Lax"]
    parts.append(f"Max-Age={_SECONDS if cookie else 0}")
    return "; ".join([*parts, *(["Secure"] if is_secure else [])])


def check_origin(request: Request) -> None:
    """Refuse a request that a page of another origin has made, with 403.

    A link from elsewhere may open a page; it changes nothing, and the other page cannot read it.
    """
    headers = request.scope["by_name"]
    site = headers.get("sec-fetch-site", "same-origin")
    is_link = request.method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    is_link = is_link and headers.get("sec-fetch-dest") == "document"
    is_foreign = site not in _SAME_ORIGIN and not is_link
    if request.method != "GET":
        origin = headers.get("origin", "")
        is_foreign = is_foreign or bool(origin and _host_of(origin) != headers.get("host", ""))
    if is_foreign:
        refuse(403, "Another page has sent this request. Open the console itself.")


def _host_of(origin: str) -> str:
    return origin.partition("://")[2]


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()


def _cookie_name(request: Request) -> str:
    _, _, port = request.scope["by_name"].get("host", "").rpartition(":")
    return f"{_COOKIE}_{port}" if port.isdecimal() else _COOKIE


def _cookie_of(request: Request) -> str:
    cookies = SimpleCookie()
    try:
        cookies.load(request.scope["by_name"].get("cookie", ""))
    except CookieError:
        return ""
    morsel = cookies.get(_cookie_name(request))
    return morsel.value if morsel is not None else ""
