"""Check digits of payment cards (ISO/IEC 7812) and bank accounts (ISO 13616)."""

# What digits count in Luhn's sum: as they are, or doubled and the digits of that summed.
_ONCE = bytes.maketrans(b"0123456789", bytes(range(10)))
_TWICE = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))

# By countries, from SWIFT's registry.
IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU",
        31: "MT SC",
        32: "LC",
    }.items()
    for country in countries.split()
}


def is_card(digits: str) -> bool:
    """Whether digits are a card's number: a known issuer's range and length, and Luhn's sum."""
    return _is_issued(digits) and _luhn(digits)


def _is_issued(digits: str) -> bool:
    length = len(digits)
    if digits[0] == "4":  # Visa
        return length in {16, 19}
    two, four = int(digits[:2]), int(digits[:4])
    if 51 <= two <= 55 or 2221 <= four <= 2720:  # noqa: PLR2004 - Mastercard
        return length == 16  # noqa: PLR2004
    if two in {34, 37}:  # American Express
        return length == 15  # noqa: PLR2004
    if two in {36, 38, 39} or 300 <= four // 10 <= 305:  # noqa: PLR2004 - Diners Club
        return length in {14, 16, 19}
    # Discover, JCB, UnionPay, Maestro and others under 6.
    return (digits[0] == "6" or 3528 <= four <= 3589) and length in {16, 17, 18, 19}  # noqa: PLR2004


def _luhn(digits: str) -> bool:
    written = digits.encode()
    once, twice = written[-1::-2].translate(_ONCE), written[-2::-2].translate(_TWICE)
    return (sum(once) + sum(twice)) % 10 == 0


def is_iban(letters: str) -> bool:
    """Whether letters and digits are an IBAN: its country's length, and remainder 1 of 97."""
    if IBAN_LENGTHS.get(letters[:2].upper()) != len(letters) or not letters.isalnum():
        return False
    return int("".join(str(int(char, 36)) for char in letters[4:] + letters[:4])) % 97 == 1
