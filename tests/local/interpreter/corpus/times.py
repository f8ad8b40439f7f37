"""Dates, times and chance at their edges."""

from tests.local.interpreter.corpus.case import Case, budget, fails

DT = "import datetime\n"

CASES: list[Case] = [
    fails(
        "a date after the last",
        DT + "datetime.date(9999, 12, 31) + datetime.timedelta(days=1)",
        "OverflowError",
    ),
    fails(
        "a date before the first",
        DT + "datetime.datetime(1, 1, 1) - datetime.timedelta(seconds=1)",
        "OverflowError",
    ),
    fails(
        "a difference that is too large", DT + "datetime.timedelta(days=10 ** 100)", "OverflowError"
    ),
    fails(
        "a difference multiplied", DT + "datetime.timedelta(days=1) * 10 ** 1000", "OverflowError"
    ),
    fails(
        "a moment out of a huge number",
        DT + "datetime.datetime.fromtimestamp(10 ** 300)",
        "OverflowError",
    ),
    fails(
        "a moment out of not a number",
        DT + "datetime.datetime.fromtimestamp(float('nan'))",
        "ValueError",
    ),
    fails(
        "a zone that is too far", DT + "datetime.timezone(datetime.timedelta(days=2))", "ValueError"
    ),
    fails("a zone that is a function", DT + "datetime.datetime.now(repr)", "TypeError"),
    fails(
        "a width in a date's format",
        DT + "datetime.date(2020, 1, 1).strftime('%999999999d')",
        "ValueError",
        known="glibc strftime widths",
    ),
    budget(
        "a width in a date's f-string",
        DT + "f'{datetime.date(2020, 1, 1):%0999999999Y}'",
        "width of a format",
        known="glibc strftime widths",
    ),
    fails(
        "a flagged width in a date's format",
        DT + "datetime.date(2020, 1, 1).strftime('%_999999999d')",
        "ValueError",
        known="glibc strftime widths",
    ),
    fails(
        "a width without padding in a date's format",
        DT + "datetime.date(2020, 1, 1).strftime('%-999999999d')",
        "ValueError",
        known="glibc strftime widths",
    ),
    budget(
        "a width in a date's format by format",
        DT + "format(datetime.datetime(2020, 1, 1), '%^99999999B')",
        "width of a format",
        known="glibc strftime widths",
    ),
    budget(
        "a width in a date's str.format",
        DT + "'{:%99999999d}'.format(datetime.date(2020, 1, 1))",
        "width of a format",
        known="glibc strftime widths",
    ),
    budget(
        "a long date's format", DT + "datetime.date(2020, 1, 1).strftime('%c' * 900_000)", "text"
    ),
    budget(
        "long dates' formats in a loop",
        DT + "d = datetime.date(2020, 1, 1)\nwhile True:\n    d.strftime('%c' * 20_000)",
    ),
    fails(
        "a format to read with that is long",
        DT + "datetime.datetime.strptime('1' * 50, '%d' * 20)",
        "ValueError",
    ),
    budget(
        "a text to read that is long",
        DT + "datetime.datetime.strptime('1' * 100_000, '%d')",
        "text",
    ),
    fails(
        "a text to read with spaces",
        DT + "datetime.datetime.strptime(' ' * 99 + 'x', '%d ' + ' ' * 50 + '%m')",
        "ValueError",
    ),
    budget(
        "reading dates in a loop",
        DT + "while True:\n    datetime.datetime.strptime('2020-01-01', '%Y-%m-%d')",
    ),
    fails(
        "a text that is no date", DT + "datetime.date.fromisoformat('9' * 100_000)", "ValueError"
    ),
    fails("a subclass's hook for zones", DT + "datetime.tzinfo()", "AttributeError"),
    fails(
        "a day of the calendar changed",
        DT + "d = datetime.date(2020, 1, 1)\nd.year = 5",
        "AttributeError",
    ),
    fails("chance in an empty range", "import random\nrandom.randint(2, 1)", "ValueError"),
    fails("the state of chance", "import random\nrandom.getstate()", "AttributeError"),
    fails("the seed of chance", "import random\nrandom.seed(1)", "AttributeError"),
    budget(
        "chance over a huge range in a loop",
        "import random\nwhile True:\n    random.randint(0, 2 ** 16000)",
    ),
]
