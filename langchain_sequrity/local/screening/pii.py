"""`pii_redaction`: personal data that has a form of its own.

Each kind has a confidence; from the classifier's threshold on it is redacted. At 0.5, the default,
that is all but numbers without separators that could be anything.

| Confidence | What |
|---|---|
| 1.0 | e-mail address; IBAN of a country's length whose check digits are right |
| 0.9 | card number in an issuer's range and length, in usual groups or none, with Luhn's digit |
| 0.85 | US social security number with hyphens, in the ranges that are given out |
| 0.8 | phone number with `+` and the country |
| 0.7 | North American phone number in groups |
| 0.6 | social security number with spaces; IP address but loopback and `0.0.0.0`; MAC address |
| 0.5 | phone number in groups that begins with 0; with 00 and the country |
| 0.3 | IPv6 address of one or two groups, which may be a slice or a time |
| 0.25 | 10 or 11 digits in one run, which may be a phone number |
| 0.2 | 9 digits in one run, which may be a social security number |

Names, addresses and dates of birth have no form by which to tell them.
"""

import re
from collections.abc import Callable, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

from langchain_sequrity.local.screening.checksums import IBAN_LENGTHS, is_card, is_iban
from langchain_sequrity.local.screening.redaction import Hit

_CARD = "card number"
_IBAN = "IBAN"
_IP = "IP address"
_PHONE = "phone number"
_SSN = "social security number"

_SEPARATORS = str.maketrans("", "", " .-/()+")
_DATE = r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}(?![\d./-])"


class _Form(NamedTuple):
    kind: str
    confidence: float
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] = bool


def _digits(text: str) -> str:
    return text.translate(_SEPARATORS)


def _is_phone(text: str) -> bool:
    return 8 <= len(_digits(text)) <= 15  # noqa: PLR2004 - E.164's longest; shorter is local


def _is_ipv4(text: str) -> bool:
    try:
        address = IPv4Address(text)
    except AddressValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def _is_ipv6(text: str) -> bool:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def _has_groups(text: str) -> bool:
    return sum(map(bool, text.split(":"))) > 2 and _is_ipv6(text)  # noqa: PLR2004 - "1::2"


_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9a-f:]*:[0-9a-f]*:)[0-9a-f:]{3,39}(?![\w:])", re.IGNORECASE)
# Every pattern is linear: bounded, and begun only where no part of the same can stand before.
_FORMS = (
    _Form(
        _SSN,
        0.85,
        re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])"),
    ),
    _Form(
        _SSN,
        0.6,
        re.compile(r"(?<!\w)(?<!\d )(?!000|666|9)\d{3} (?!00)\d\d (?!0000)\d{4}(?!\w)(?! \d)"),
    ),
    _Form(
        _PHONE,
        0.8,
        re.compile(r"(?<![\w+])\+ ?[1-9]\d{0,2}(?:[ ./()-]{0,3}\d){6,14}(?!\d)"),
        _is_phone,
    ),
    _Form(
        _PHONE,
        0.7,
        re.compile(
            r"(?<![\w.+-])(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}(?![\w-])"
        ),
    ),
    _Form(
        _PHONE,
        0.5,
        re.compile(
            rf"(?<![\w.,:+/-])(?!{_DATE})\(?0\d{{1,5}}(?:\) ?|[ ./-])\d{{2,8}}"
            r"(?:[ .-]\d{2,6}){0,4}(?![\w-])"
        ),
        _is_phone,
    ),
    _Form(
        _PHONE,
        0.5,
        re.compile(r"(?<![\w.,:+-])00 ?[1-9]\d{0,2}(?:[ ./()-]{0,3}\d){6,12}(?![\w-])"),
        _is_phone,
    ),
    _Form(_PHONE, 0.25, re.compile(r"(?<![\w.,-])\d{10,11}(?![\w-])")),
    _Form(_SSN, 0.2, re.compile(r"(?<![\w.,-])(?!000|666|9)\d{9}(?![\w-])")),
    _Form(_IP, 0.6, re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)"), _is_ipv4),
    _Form(_IP, 0.6, _IPV6, _has_groups),
    _Form(_IP, 0.3, _IPV6, _is_ipv6),
    _Form(
        "MAC address",
        0.6,
        re.compile(
            r"(?<![\w:-])[0-9a-f]{2}([:-])[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}(?![\w:-])", re.IGNORECASE
        ),
    ),
)
_CARD_CONFIDENCE = 0.9
# Looked for at every group, since the first ones need not belong to the card; so a card can be all
# of what fits, or all but the last group of three.
_CARDS = re.compile(
    r"(?<!\d)(?=([2-6]\d{13,18}(?!\d)|([2-6]\d{3}(?P<gap>[ .-])"
    r"(?:\d{4}(?P=gap)\d{4}(?P=gap)\d{4}|\d{6}(?P=gap)\d{4,5})(?!\d))"
    r"(?:(?P=gap)\d{3}(?!\d))?))"
)
_AT = re.compile(r"@(?:[\w-]{1,63}+\.)+(?:[^\W\d_]{2,63}|xn--[\w-]{1,59})")
_IN_LOCAL_PART = frozenset("!#$%&'*+-./=?^_`{|}~")
_LONGEST_LOCAL_PART = 64
_IBAN_BEGINS = re.compile(r"(?<![^\W_])[A-Za-z]{2}\d\d(?=[ -]?[A-Za-z0-9])")
_GROUPED = {
    length: re.compile(rf"(?:[ -]?[A-Za-z0-9]){{{length - 4}}}(?![^\W_])")
    for length in set(IBAN_LENGTHS.values())
}


def find_pii(text: str, threshold: float) -> Iterator[Hit]:
    """Find personal data.

    Args:
        text: A folded text.
        threshold: Least confidence of what is found.

    Yields:
        Their places.
    """
    yield from _emails(text)
    yield from _ibans(text)
    if threshold <= _CARD_CONFIDENCE:
        yield from _cards(text)
    for form in _FORMS:
        if form.confidence >= threshold:
            for match in form.pattern.finditer(text):
                if form.holds(match[0]):
                    yield Hit(*match.span(), form.kind)


def _emails(text: str) -> Iterator[Hit]:
    done = 0
    for domain in _AT.finditer(text):
        at = domain.start()
        floor = max(done, at - _LONGEST_LOCAL_PART)
        start = at
        while start > floor and (text[start - 1].isalnum() or text[start - 1] in _IN_LOCAL_PART):
            start -= 1
        if start < at:
            yield Hit(start, domain.end(), "e-mail address")
        done = domain.end()


def _cards(text: str) -> Iterator[Hit]:
    for match in _CARDS.finditer(text):
        for group in (1, 2) if match.end(1) > match.end(2) > 0 else (1,):
            if is_card(match[group].translate(_SEPARATORS)):
                yield Hit(*match.span(group), _CARD)
                break


def _ibans(text: str) -> Iterator[Hit]:
    for begin in _IBAN_BEGINS.finditer(text):
        length = IBAN_LENGTHS.get(begin[0][:2].upper())
        rest = _GROUPED[length].match(text, begin.end()) if length else None
        if rest and is_iban((begin[0] + rest[0]).translate(_SEPARATORS)):
            yield Hit(begin.start(), rest.end(), _IBAN)
