"""What `pii_redaction` redacts, and with which confidence."""

import pytest

from langchain_sequrity.headers import Classifier
from langchain_sequrity.local.screening import Screen
from tests.local.screening.screens import redacted, screen


def pii(threshold: float = 0.5) -> Screen:
    return screen(classifiers=(Classifier(name="pii_redaction", threshold=threshold),))


# The highest threshold at which a text is redacted, its kind, the text.
TABLE = [
    (1.0, "E-MAIL ADDRESS", "ann@example.com"),
    (1.0, "E-MAIL ADDRESS", "ann.b+c_d@mail.example.co.uk"),
    (1.0, "E-MAIL ADDRESS", "анна@пример.рф"),
    (1.0, "E-MAIL ADDRESS", "ann\uff20example.com"),
    (1.0, "IBAN", "DE89370400440532013000"),
    (1.0, "IBAN", "GB29 NWBK 6016 1331 9268 19"),
    (1.0, "IBAN", "fr14-2004-1010-0505-0001-3M02-606"),
    (1.0, "IBAN", "NO93 8601 1117 947"),
    (1.0, "IBAN", "MN12 1234 1234 5678 9123"),
    (0.9, "CARD NUMBER", "4111 1111 1111 1111"),
    (0.9, "CARD NUMBER", "5500-0000-0000-0004"),
    (0.9, "CARD NUMBER", "378282246310005"),
    (0.9, "CARD NUMBER", "3782 822463 10005"),
    (0.9, "CARD NUMBER", "6011000990139424"),
    (0.9, "CARD NUMBER", "3056 930902 5904"),
    (0.9, "CARD NUMBER", "3530.1113.3330.0000"),
    (0.9, "CARD NUMBER", "2223003122003222"),
    (0.9, "CARD NUMBER", "6200000000000005"),
    (0.9, "CARD NUMBER", "4111\u00a01111\u00a01111\u00a01111"),
    (0.9, "CARD NUMBER", "\u0664\u0661\u0661\u0661" + "\u0661" * 12),
    (0.85, "SOCIAL SECURITY NUMBER", "123-45-6789"),
    (0.8, "PHONE NUMBER", "+49 30 1234567"),
    (0.8, "PHONE NUMBER", "+49 (0)30 123-4567"),
    (0.8, "PHONE NUMBER", "+33 6 12 34 56 78"),
    (0.8, "PHONE NUMBER", "+14155550123"),
    (0.7, "PHONE NUMBER", "(415) 555-0123"),
    (0.7, "PHONE NUMBER", "1-415-555-0123"),
    (0.7, "PHONE NUMBER", "415\u2011555\u20110123"),
    (0.6, "SOCIAL SECURITY NUMBER", "123 45 6789"),
    (0.6, "IP ADDRESS", "192.0.2.7"),
    (0.6, "IP ADDRESS", "2001:db8::42"),
    (0.6, "IP ADDRESS", "2001:0db8:0000:0000:0000:0000:0000:0042"),
    (0.6, "MAC ADDRESS", "00:1b:63:84:45:e6"),
    (0.5, "PHONE NUMBER", "030 1234567"),
    (0.5, "PHONE NUMBER", "06 12 34 56 78"),
    (0.5, "PHONE NUMBER", "0049 30 1234567"),
    (0.3, "IP ADDRESS", "fe80::1"),
    (0.25, "PHONE NUMBER", "4155550123"),
    (0.2, "SOCIAL SECURITY NUMBER", "123456789"),
]

NEVER = [
    "",
    "ann at example",
    "@ann and @bob",
    "a@b",
    "4111 1111 1111 1112",
    "1234 5678 9012 3456",
    "DE89370400440532013001",
    "ZZ89370400440532013000",
    "GB71370400440532013000",  # the check digits are right, but a British bank code has letters
    "000-12-3456",
    "666-12-3456",
    "900-12-3456",
    "123-00-4567",
    "127.0.0.1",
    "::1",
    "0.0.0.0",  # noqa: S104 - a text
    "999.1.1.1",
    "1.2.3.4.5",
    "2024-01-02",
    "01.02.2024",
    "02/01/2024",
    "12:30:45",
    "2024-01-02T03:04:05Z",
    "1,234,567.89",
    "3.14159265358979",
    "std::vector",
    "123e4567-e89b-12d3-a456-426614174000",
    "chapter 1.2.3",
    "2019 2020 2021 2022",
]


@pytest.mark.parametrize(("confidence", "kind", "text"), TABLE)
def test_personal_data_are_redacted_up_to_the_threshold_of_their_confidence(
    confidence: float, kind: str, text: str
) -> None:
    assert redacted(pii(confidence), f"<{text}>.") == f"<[{kind} REDACTED]>."
    if confidence < 1:
        assert redacted(pii(confidence + 0.01), f"<{text}>.") == f"<{text}>."


@pytest.mark.parametrize("text", NEVER)
def test_text_that_is_not_personal_data_stays_at_any_threshold(text: str) -> None:
    assert redacted(pii(0), text) == text


def test_text_around_personal_data_stays() -> None:
    text = "Ann (ann@example.com, +49 30 1234567) paid with 4111 1111 1111 1111 123."
    assert redacted(pii(), text) == (
        "Ann ([E-MAIL ADDRESS REDACTED], [PHONE NUMBER REDACTED]) paid with "
        "[CARD NUMBER REDACTED] 123."
    )


@pytest.mark.parametrize("between", ["", "_", "1" * 100, "a." * 50])
def test_adjacent_e_mail_addresses_are_all_redacted(between: str) -> None:
    text = redacted(pii(1), f"to ann@example.com{between}bob@example.com !")
    assert text == "to [E-MAIL ADDRESS REDACTED] !"


@pytest.mark.parametrize("before", ["1 ", "4111 ", "12 3456 "])
def test_digits_before_a_card_do_not_hide_it(before: str) -> None:
    text = redacted(pii(0.9), f"{before}4111 1111 1111 1111")
    assert text == f"{before}[CARD NUMBER REDACTED]"


def test_a_card_number_or_iban_with_one_wrong_digit_is_not_redacted() -> None:
    card, iban = "4111111111111111", "DE89370400440532013000"
    for number, first in ((card, 1), (iban, 2)):
        assert redacted(pii(0.9), number) != number
        for place in range(first, len(number)):
            for digit in set("0123456789") - {number[place]}:
                wrong = number[:place] + digit + number[place + 1 :]
                assert redacted(pii(0.9), wrong) == wrong


@pytest.mark.parametrize("number", [4111111111111111, -4111111111111111, 4111111111111111.0])
def test_a_card_number_given_as_a_number_becomes_a_marker(number: float) -> None:
    value = redacted(pii(), {"card": number, "amount": 20})
    assert value["card"].lstrip("-") == "[CARD NUMBER REDACTED]"
    assert value["amount"] == 20


@pytest.mark.parametrize("number", [0, 7, 1234567890123456, 10**400, 1e300, 0.4111111111111111])
def test_other_numbers_stay(number: float) -> None:
    assert redacted(pii(), [number]) == [number]
