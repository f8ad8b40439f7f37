r"""`pii_redaction`: personal data with a recognizable form.

Each kind has a confidence. A kind is redacted if its confidence reaches the classifier's threshold.
At 0.5, the default, this excludes only numbers without separators, which could be anything.

| Confidence | What |
|---|---|
| 1.0 | e-mail address; IBAN with correct check digits |
| 0.9 | card number with an issuer's range and length, in usual groups or none, with Luhn digit |
| 0.85 | US social security number with hyphens, in an assigned range |
| 0.8 | phone number with `+` and country code |
| 0.7 | North American phone number in groups |
| 0.6 | social security number with spaces; IP address, except loopback and `0.0.0.0`; MAC address |
| 0.5 | phone number in groups that begins with 0; phone number with 00 and country code |
| 0.3 | IPv6 address of one or two groups, which may be a slice or a time |
| 0.25 | 10 or 11 digits in one run, which may be a phone number |
| 0.2 | 9 digits in one run, which may be a social security number |

Names, addresses and dates of birth have no recognizable form.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import ip_address
from itertools import product
from string import ascii_uppercase

from stdnum import iban, luhn, numdb
from stdnum.us import ssn

from langchain_sequrity.local.screening.blockers import TOP_LEVEL_DOMAIN

_ISSUED = re.compile(
    r"4\d{15}(?:\d{3})?"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:[689]\d|0[0-5])\d(?:\d{10}|\d{12}|\d{15})"  # Diners Club
    r"|(?:6\d{3}|35(?:2[89]|[3-8]\d))\d{12,15}"  # Discover, JCB, UnionPay, Maestro and others
)


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def _is_card(text: str) -> bool:
    digits = _digits(text)
    return _ISSUED.fullmatch(digits) is not None and luhn.is_valid(digits)


def _is_ssn(text: str) -> bool:
    return ssn.is_valid(_digits(text))


def _is_phone(text: str) -> bool:
    return 8 <= len(_digits(text)) <= 15  # noqa: PLR2004 - E.164's maximum; shorter numbers are local


def _is_address(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def _has_groups(text: str) -> bool:
    return sum(map(bool, text.split(":"))) > 2 and _is_address(text)  # noqa: PLR2004 - "1::2"


def _accounts() -> Iterator[str]:
    """A pattern of an IBAN for each country in SWIFT's registry, with or without groups."""
    for country in map("".join, product(ascii_uppercase, repeat=2)):
        lengths = re.findall(r"\d+", numdb.get("iban").info(country)[0][1].get("bban", ""))
        if lengths:
            yield rf"{country}\d\d(?:[ -]?[a-z0-9]){{{sum(map(int, lengths))}}}"


_CARD, _PHONE, _SSN, _IP = "card number", "phone number", "social security number", "IP address"
_LOCAL_PART = r"[\w!#$%&'*+\-./=?^`{|}~]"
_EMAIL = rf"(?<!{_LOCAL_PART}){_LOCAL_PART}++@(?:[\w-]{{1,63}}+\.)+{TOP_LEVEL_DOMAIN}"
_IBAN = rf"(?<![^\W_])(?=[a-z]{{2}}\d\d)(?:{'|'.join(_accounts())})(?![^\W_])"
_FOURS = r"\d{4}(?P=gap)\d{4}(?P=gap)\d{4}"
_IN_GROUPS = rf"(?<!\d)[2-6]\d{{3}}(?P<gap>[ .-])(?:{_FOURS}|\d{{6}}(?P=gap)\d{{4,5}})(?!\d)"
_AREA = r"[2-9]\d\d"
_AMERICAN = rf"(?:1[ .-])?(?:\({_AREA}\) ?|{_AREA}[ .-]){_AREA}[ .-]\d{{4}}"
_DATE = r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}(?![\d./-])"
_NATIONAL = rf"(?!{_DATE})\(?0\d{{1,5}}(?:\) ?|[ ./-])\d{{2,8}}(?:[ .-]\d{{2,6}}){{0,4}}"
_IPV6 = r"(?<![\w:.])(?=[0-9a-f:]*:[0-9a-f]*:)[0-9a-f:]{3,39}(?![\w:])"
_MAC = r"(?<![\w:-])[0-9a-f]{2}(?P<gap>[:-])[0-9a-f]{2}(?:(?P=gap)[0-9a-f]{2}){4}(?![\w:-])"
# Kind, confidence, pattern, and whether what the pattern finds is what it looks like. Every pattern
# is linear: bounded, or begun only where a run of its characters begins.
_FORMS: tuple[tuple[str, float, str, Callable[[str], bool]], ...] = (
    ("e-mail address", 1.0, _EMAIL, bool),
    ("IBAN", 1.0, _IBAN, partial(iban.is_valid, check_country=False)),
    (_CARD, 0.9, r"(?<!\d)[2-6]\d{13,18}(?!\d)", _is_card),
    (_CARD, 0.9, _IN_GROUPS, _is_card),
    (_CARD, 0.9, rf"{_IN_GROUPS}(?P=gap)\d{{3}}(?!\d)", _is_card),
    (_SSN, 0.85, r"(?<![\w-])\d{3}-\d\d-\d{4}(?![\w-])", _is_ssn),
    (_SSN, 0.6, r"(?<!\w)(?<!\d )\d{3} \d\d \d{4}(?!\w)(?! \d)", _is_ssn),
    (_SSN, 0.2, r"(?<![\w.,-])\d{9}(?![\w-])", _is_ssn),
    (_PHONE, 0.8, r"(?<![\w+])\+ ?[1-9]\d{0,2}(?:[ ./()-]{0,3}\d){6,14}(?!\d)", _is_phone),
    (_PHONE, 0.7, rf"(?<![\w.+-]){_AMERICAN}(?![\w-])", bool),
    (_PHONE, 0.5, rf"(?<![\w.,:+/-]){_NATIONAL}(?![\w-])", _is_phone),
    (_PHONE, 0.5, r"(?<![\w.,:+-])00 ?[1-9]\d{0,2}(?:[ ./()-]{0,3}\d){6,12}(?![\w-])", _is_phone),
    (_PHONE, 0.25, r"(?<![\w.,-])\d{10,11}(?![\w-])", bool),
    (_IP, 0.6, r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)", _is_address),
    (_IP, 0.6, _IPV6, _has_groups),
    (_IP, 0.3, _IPV6, _is_address),
    ("MAC address", 0.6, _MAC, bool),
)
# A candidate for one number may begin inside a candidate for another.
_PATTERNS = [re.compile(f"(?=({pattern}))", re.IGNORECASE) for _, _, pattern, _ in _FORMS]


def find_pii(text: str, threshold: float) -> Iterator[tuple[int, int, str]]:
    """Find personal data.

    Args:
        text: A folded text.
        threshold: Minimum confidence.

    Yields:
        Start, end and kind.
    """
    for (kind, confidence, _, holds), pattern in zip(_FORMS, _PATTERNS, strict=True):
        if confidence >= threshold:
            for match in pattern.finditer(text):
                if holds(match[1]):
                    yield (*match.span(1), kind)
