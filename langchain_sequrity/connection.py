"""`Connection`: address, keys, path and headers of a model's calls.

Everything that is the same for each call of a model is made once: the headers as bytes, the path,
and the key of the digests that tie sessions to this connection.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

from langchain_sequrity._version import __version__
from langchain_sequrity.denials import Denial
from langchain_sequrity.display import enumeration
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import (
    ConfigHeader,
    FeaturesHeader,
    FsmConfig,
    Header,
    PolicyHeader,
    read_header,
)
from langchain_sequrity.wire.exchange import ServiceCall
from langchain_sequrity.wire.routes import (
    DEFAULT_BASE_URL,
    Format,
    chat_route,
    is_loopback,
    policy_route,
)

_SHORTEST_SECRET = 8
"""Minimum length of a header value that is masked. A shorter value may be an ordinary word."""
_LONGEST_HEADER = 8 * 1024  # bytes: many proxies cut or refuse longer lines
_LONGEST_ALONE = 64 * 1024  # where no proxy is between, as the local server accepts it
LOOPBACK_KEY = "local"
"""Used instead of a Sequrity key on a loopback address."""
ASKED_KEY = "asked-before-each-call"
"""Used instead of a key that a function gives, until that function is called."""

HeaderBytes = tuple[bytes, bytes]

_USER_AGENT = f"langchain-sequrity/{__version__}"
_OWN_HEADERS = frozenset(
    {
        "accept-encoding",
        "authorization",
        "content-type",
        "connection",  # could tell proxies to drop the policy
        "content-length",
        "cookie",
        "expect",
        "host",
        "idempotency-key",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-api-key",
        "x-session-id",
    }
)


KEY_VARIABLES = {"api_key": "SEQURITY_API_KEY", "llm_api_key": "SEQURITY_LLM_API_KEY"}


def check_key(name: str, key: str) -> None:
    """Check that a key can be the value of an HTTP header. Errors never show the key.

    Raises:
        UsageError: If the key is empty or not ASCII, or has spaces or control characters.
    """
    if not key:
        variable = KEY_VARIABLES.get(name)
        instead = f" to use the environment variable `{variable}`" if variable else ""
        msg = f"`{name}` is empty. Give the key, or leave `{name}` out{instead}."
        raise UsageError(msg)
    if not key.isascii() or not key.isprintable() or " " in key:
        msg = (
            f"`{name}` is not a key: one of its {len(key)} characters is a space, a line break or "
            "not ASCII. Copy the key again, without the characters around it."
        )
        raise UsageError(msg)


def one_of_each(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a user's headers.

    Raises:
        UsageError: If a name is not a text, or one header has two spellings: the last one would
            replace the other silently.
    """
    spellings: dict[str, str] = {}
    for name in headers:
        if not isinstance(name, str):
            raise _no_name(name)
        other = spellings.setdefault(name.lower().replace("_", "-"), name)
        if other != name:
            msg = f"`{other}` and `{name}` are one header. Give it once."
            raise UsageError(msg)
    return dict(headers)


def _no_name(name: object) -> UsageError:
    return UsageError(f"{name!r} is not the name of a header.")


_JSON_HEADERS: dict[str, tuple[str, type[Header]]] = {
    "x-features": ("features", FeaturesHeader),
    "x-policy": ("policy", PolicyHeader),
    "x-config": ("config", ConfigHeader),
}


def take_json_headers(headers: dict[str, str]) -> dict[str, Any]:
    """Remove X-Features, X-Policy and X-Config from a dict of headers.

    Args:
        headers: Names and values. The three headers are removed from it.

    Returns:
        The headers that it had, as `features`, `policy` and `config`.

    Raises:
        UsageError: If one of them cannot be read.
    """
    json_headers: dict[str, Any] = {}
    for name in list(headers):
        if row := _JSON_HEADERS.get(name.lower().replace("_", "-")):
            field_name, header_class = row
            json_headers[field_name] = read_header(header_class, headers.pop(name), unknown="keep")
    return json_headers


@dataclass(frozen=True)
class Connection:
    """Address, keys, path and headers of a model's calls.

    Args:
        base_url: A result of `normalize_base_url`.
        api_key: The Sequrity key.
        llm_api_key: The LLM provider's key, or `None` for the service's own.
        endpoint_type: `chat`, `code`, `agent` or `lang-graph`; `policy-gen` for policies.
        provider: Provider segment of the path, or `None` for the service's default.
        suffix: The wire format; `generate` for policies.
        features: X-Features, or `None` for the configuration of the key.
        policy: X-Policy, or `None`.
        config: X-Config, or `None`.
        default_headers: Further headers of each call, without the three JSON headers.
        default_query: Query of every URL.
        max_header_bytes: Longest header line that is sent; `None` for what is sure to arrive:
            64 KiB on a loopback address, 8 KiB elsewhere.
        allow_http: Whether plain http to other machines is allowed.

    Attributes:
        header_limit: Longest header line that is sent.
        is_hosted: Whether the calls go to the hosted service.
        path: Path and query of the calls.

    Raises:
        UsageError: For a route that does not exist, a bad key or header, or plain http to another
            machine.
    """

    base_url: str
    api_key: str = field(repr=False)
    llm_api_key: str | None = field(default=None, repr=False)
    endpoint_type: str = "chat"
    provider: str | None = None
    suffix: Format | Literal["generate"] = "chat/completions"
    features: FeaturesHeader | None = None
    policy: PolicyHeader | None = None
    config: ConfigHeader | None = None
    default_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    default_query: Mapping[str, str] = field(default_factory=dict, repr=False)
    max_header_bytes: int | None = None
    allow_http: bool = False
    header_limit: int = field(init=False)
    is_hosted: bool = field(init=False)
    path: str = field(init=False)
    _headers: dict[bytes, HeaderBytes] = field(init=False, repr=False, compare=False)
    _digest_keys: dict[str, bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make everything that is the same for each call."""
        check_key("api_key", self.api_key)
        if self.llm_api_key is not None:
            check_key("llm_api_key", self.llm_api_key)
        address = urlsplit(self.base_url)
        if address.scheme != "https" and not (
            self.allow_http or is_loopback(address.hostname or "")
        ):
            msg = (
                f"Plain http to `{self.base_url}` would show keys to the network. Use https, or "
                "pass `allow_http=True` if the network is safe."
            )
            raise UsageError(msg)
        if self.suffix == "generate":
            route = policy_route(self.provider)
        else:
            route = chat_route(self.endpoint_type, self.provider, self.suffix)
        query = f"?{urlencode(self.default_query)}" if self.default_query else ""
        default_limit = _LONGEST_ALONE if is_loopback(address.hostname or "") else _LONGEST_HEADER
        object.__setattr__(self, "header_limit", self.max_header_bytes or default_limit)
        is_hosted = address.hostname == urlsplit(DEFAULT_BASE_URL).hostname
        object.__setattr__(self, "is_hosted", is_hosted)
        object.__setattr__(self, "path", route.path + query)
        object.__setattr__(self, "_headers", self._common_headers())
        object.__setattr__(self, "_digest_keys", {})

    @property
    def dual_llm(self) -> bool | None:
        """Whether sessions are dual-LLM; `None` if the configuration of the key decides."""
        if self.endpoint_type == "lang-graph":
            return True
        arch = None if self.features is None else self.features.agent_arch
        return None if arch is None else arch == "dual-llm"

    @property
    def is_guarded(self) -> bool:
        """Whether the caller gave rules that may deny a call."""
        return self.policy is not None or self.is_screened

    @property
    def is_screened(self) -> bool:
        """Whether classifiers or blockers check what calls and results contain."""
        features = self.features
        return features is not None and bool(
            features.content_classifiers or features.content_blockers
        )

    @cached_property
    def uses_session(self) -> bool:
        """Whether the policy has rules on labels that the session keeps from turn to turn."""
        return not self.clears_session and self.policy is not None and self.policy.uses_session

    @property
    def clears_session(self) -> bool:
        """Whether the session is told to forget its labels from turn to turn."""
        fsm = None if self.config is None else self.config.fsm
        return fsm is not None and fsm.clear_session_meta in {"every_turn", "every_attempt"}

    def with_author_rule(self, denial: Denial) -> Denial:
        """The denial with the author's rule and its place in the author's text of the policy.

        The service names rules and places of the text that it was sent.
        """
        return denial if self.policy is None else self.policy.with_author_rule(denial)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that must never be shown: keys, and headers that may hold tokens."""
        keys = [self.api_key, self.llm_api_key or LOOPBACK_KEY]
        keys += [value for value in self.default_headers.values() if len(value) >= _SHORTEST_SECRET]
        return tuple(key for key in keys if key not in (LOOPBACK_KEY, ASKED_KEY))

    @property
    def owner(self) -> str:
        """A digest of the account: the key at this address."""
        return hmac.digest(self.api_key.encode(), self.base_url.encode(), "sha256").hex()

    @property
    def fingerprint(self) -> str:
        """A digest that identifies this connection without showing its keys."""
        text = b"".join(b"%d:%b" % (len(value), value) for _, value in self._headers.values())
        return hmac.digest(self.api_key.encode(), self.path.encode() + text, "sha256").hex()

    def with_whole_envelopes(self) -> "Connection":
        """The connection with `strip_response_content` off if sessions may be dual-LLM.

        Without its envelope a failed turn looks like an answer (`docs/behaviour.md`, P3).

        Raises:
            UsageError: If the caller set it.
        """
        if self.dual_llm is False:
            return self
        config = self.config
        if config is not None and config.strips_response_content:
            msg = (
                "`strip_response_content` cannot be true in a session that may be dual-LLM: a "
                "failed turn would look like an answer. Leave it out; the answer's text is "
                "unwrapped for you."
            )
            raise UsageError(msg)
        if self.dual_llm is None:
            return self
        return replace(self, config=(config or ConfigHeader()).with_envelope())

    def with_offers(self) -> "Connection":
        """The connection that asks for the offer of softly denied calls.

        Raises:
            UsageError: If no service could offer them there.
        """
        reason = ""
        if self.dual_llm is not True or self.endpoint_type == "lang-graph":
            reason = (
                "only chats in dual-LLM sessions have it: give "
                '`features={"agent_arch": "dual-llm"}`'
            )
        elif urlsplit(self.base_url).hostname == urlsplit(DEFAULT_BASE_URL).hostname:
            reason = (
                "the hosted service is not documented to offer denied calls for approval; "
                "`LocalServer` and its gateway do"
            )
        if reason:
            msg = f'`on_denied="interrupt"`: {reason}.'
            raise UsageError(msg)
        config = self.config or ConfigHeader()
        fsm = (config.fsm or FsmConfig()).model_copy(update={"offer_soft_denials": True})
        return replace(self, config=config.model_copy(update={"fsm": fsm}))

    @property
    def sent_config(self) -> ConfigHeader | None:
        """X-Config as it is sent: it also asks for the program and the checks of a dual-LLM turn.

        The caller's settings have precedence. A graph's program is known, so it is not asked for.
        """
        if not self.dual_llm or self.endpoint_type == "lang-graph":
            return self.config
        return (self.config or ConfigHeader()).with_envelope(in_full=True)

    def with_keys(self, keys: Mapping[str, str]) -> "Connection":
        """The connection with other keys.

        Args:
            keys: `api_key`, `llm_api_key`, both, or an empty mapping for `self`.
        """
        changes: dict[str, Any] = dict(keys)
        return replace(self, **changes) if changes else self

    def for_policies(self) -> "Connection":
        """The connection for the generation of policies, with the same keys and address.

        It has no JSON headers, and its calls never name a session: a policy does not belong to a
        conversation.

        Raises:
            UsageError: If the provider does not generate policies.
        """
        # Without a provider the request goes to OpenRouter (`docs/protocol.md`, Endpoints), which
        # must not get the key of a model with Anthropic's format.
        provider = "anthropic" if self.suffix == "messages" else self.provider
        return replace(
            self,
            endpoint_type="policy-gen",
            provider=provider,
            suffix="generate",
            features=None,
            policy=None,
            config=None,
        )

    def with_headers(self, headers: Mapping[str, str]) -> "tuple[Connection, dict[str, str]]":
        """Separate the three JSON headers from a call's own headers.

        They decide on the policy, the session and the reading of a reply, so they are never sent
        unread.

        Args:
            headers: Headers of one call.

        Returns:
            The connection with these JSON headers, and the other headers.

        Raises:
            UsageError: If one of them cannot be read.
        """
        rest = dict(headers)
        json_headers = take_json_headers(rest)
        if not json_headers:
            return self, rest
        return replace(self, **json_headers).with_whole_envelopes(), rest

    def call(
        self,
        body: bytes,
        *,
        session_id: str | None,
        resend: bool,
        extra_headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> ServiceCall:
        """Make a call.

        Args:
            body: The JSON body.
            session_id: The session to resume, or `None`.
            resend: Whether it may be sent again after it may have been processed.
            extra_headers: Headers of this call only; they override all others except the keys.
            idempotency_key: Identifies the call, and is the same if the call is repeated; `None`
                for a random key.

        Returns:
            The call.

        Raises:
            UsageError: If a header is invalid or too long.
        """
        headers = dict(self._headers)
        if session_id is not None:
            self._set_header(headers, "X-Session-ID", session_id)
        for name, value in (extra_headers or {}).items():
            self._set_user_header(headers, name, value)
        if idempotency_key is not None:
            self._set_header(headers, "Idempotency-Key", idempotency_key)
        return ServiceCall(self.path, tuple(headers.values()), body, resend, session_id)

    def session_digest(self, model: str, session_id: str) -> str:
        """The digest that ties a session id to this connection and to a model."""
        key = self._digest_keys.get(model)
        if key is None:
            key = self._digest_keys[model] = self._digest_key(model)
        return hmac.digest(key, session_id.encode("utf-8", "surrogatepass"), "sha256").hex()

    def _digest_key(self, model: str) -> bytes:
        context = [self.base_url, self.path, model]
        context += [
            self._headers.get(name, (b"", b""))[1].decode("ascii", "replace")
            for name in (b"x-features", b"x-policy", b"x-config")
        ]
        # The lengths separate the fields unambiguously.
        text = "".join(f"{len(part)}:{part}" for part in context)
        return hmac.digest(self.api_key.encode(), text.encode(), "sha256")

    def _common_headers(self) -> dict[bytes, HeaderBytes]:
        headers: dict[bytes, HeaderBytes] = {}
        self._set_header(headers, "Content-Type", "application/json")
        if self.suffix != "generate":
            self._set_header(headers, "Accept", "application/json, text/event-stream")
        self._set_header(headers, "User-Agent", _USER_AGENT)
        for header in (self.features, self.policy, self.sent_config):
            if header is not None:
                self._set_header(headers, header.header_name, header.to_header())
        for name, value in self.default_headers.items():
            self._set_user_header(headers, name, value)
        # Keys come last: if a header above is refused, the traceback's variables hold no keys.
        if self.llm_api_key is not None:
            self._set_header(headers, "X-Api-Key", self.llm_api_key)
        self._set_header(headers, "Authorization", f"Bearer {self.api_key}")
        return headers

    def _set_user_header(self, headers: dict[bytes, HeaderBytes], name: str, value: str) -> None:
        if name.lower().replace("_", "-") in _OWN_HEADERS:
            msg = (
                f"The header `{name}` is set by the package. Use `api_key`, `llm_api_key`, "
                "`session_id` (of a call) or `http_client` instead."
            )
            raise UsageError(msg)
        self._set_header(headers, name, value)

    def _combined(self, name: str) -> str:
        """A sentence on the policies that a header combines."""
        combination = self.policy and name == PolicyHeader.header_name and self.policy.combination
        if not combination:
            return ""
        names = [f"`{source.name}`" for source in combination.sources]
        return f" It contains the policies {enumeration(names)}."

    def _set_header(self, headers: dict[bytes, HeaderBytes], name: str, value: str) -> None:
        if not (name and name.isascii() and name.replace("-", "").replace("_", "").isalnum()):
            raise _no_name(name)
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            msg = f"The value of header `{name}` must be printable ASCII on one line."
            raise UsageError(msg)
        size = len(name) + len(value) + 4  # colon, space and line end
        if size > self.header_limit:
            msg = (
                f"The header `{name}` would be {size} bytes long, over `max_header_bytes` "
                f"({self.header_limit}); proxies cut such headers.{self._combined(name)} Shorten "
                "it, or store the configuration with the key. Or raise `max_header_bytes`, if the "
                "service and all proxies before it accept longer headers; the limit of the hosted "
                "service is not known."
            )
            raise UsageError(msg)
        headers[name.lower().encode()] = (name.encode(), value.strip().encode())
