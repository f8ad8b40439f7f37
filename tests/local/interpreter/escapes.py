"""Runs the whole corpus: `python -m tests.local.interpreter.escapes`.

It prints the faults, and the programs that took the most time and memory. With `--limits default`
programs run with the default limits. Then it depends on the machine which limit stops a program, but
each must still end within 2 s and 200 MB.
"""

import argparse
import sys
import time
from typing import TYPE_CHECKING

from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.local.interpreter import Limits
from tests.local.interpreter.corpus import FAMILIES
from tests.local.interpreter.corpus.case import with_any_limits
from tests.local.interpreter.observer import Observer, limits_of

if TYPE_CHECKING:
    from tests.local.interpreter.corpus.case import Case
    from tests.local.interpreter.observer import Seen


def tell(line: str) -> None:
    """Print a line immediately."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Return 1 if a program did not end as expected."""
    parser = argparse.ArgumentParser(description="Run hostile programs.")
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--name", default="", help="a part of the name of a program")
    parser.add_argument("--limits", choices=["strict", "default"], default="strict")
    parser.add_argument("--slowest", type=int, default=10)
    options = parser.parse_args()
    in_use = options.limits == "default"
    rows: list[tuple[Case, Seen]] = []
    bad, start = 0, time.monotonic()
    with Observer() as observer:
        for family in tracked(options.family or FAMILIES, "Running", unit="families", waits=True):
            for case in FAMILIES[family]:
                if options.name not in case.name:
                    continue
                seen = observer.run(case.program, Limits() if in_use else limits_of(case))
                rows.append((case, seen))
                faults = observer.judge(with_any_limits(case) if in_use else case, seen)
                bad += bool(faults)
                for fault in faults:
                    hide()
                    tell(f"{family}: {case.name}: {fault}")
    rows.sort(key=lambda row: row[1].seconds, reverse=True)
    for case, seen in rows[: options.slowest]:
        tell(f"{seen.seconds:6.2f} s {seen.megabytes:6.0f} MB  {case.name}")
    for case, seen in sorted(rows, key=lambda row: -row[1].megabytes)[:5]:
        tell(f"{seen.seconds:6.2f} s {seen.megabytes:6.0f} MB  {case.name}")
    tell(f"{len(rows)} programs, {bad} not as they should be, {time.monotonic() - start:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
