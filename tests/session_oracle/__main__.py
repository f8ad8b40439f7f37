"""Plays many random conversations, and prints each in which a call ran that the engine denies."""

import argparse
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from langchain_sequrity.display.progress import hide, tracked
from tests.session_oracle.cases import WAYS, Case, make_case
from tests.session_oracle.play import LABEL_KEY, Outcome, open_stage, play, play_here, take_turn
from tests.session_oracle.stage import Stage

_PROGRESS = 250


def _report(outcome: Outcome, *, shows_all: bool) -> None:
    if outcome.violations or outcome.strange or outcome.false_alarms or shows_all:
        lines = [f"VIOLATION {text}" for text in outcome.violations]
        lines += [f"STRANGE {text}" for text in outcome.strange]
        lines += [f"FALSE ALARM {text}" for text in outcome.false_alarms]
        if shows_all:
            lines += [
                f"{error} after {events[-3:]}: {text}" for error, events, text in outcome.losses
            ]
        hide()
        sys.stdout.write("\n".join([str(outcome.case), *lines, ""]))
        sys.stdout.flush()


def main() -> int:
    """Play conversations; return 1 if one has a violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.session_oracle", description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0, help="the first conversation")
    parser.add_argument("--way", choices=WAYS, help="only this way of enforcement")
    parser.add_argument("--driver", help="only conversations with this driver")
    parser.add_argument("--only", type=int, help="play this conversation alone, and show it")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--turn", type=int, help=argparse.SUPPRESS)  # for another process
    parser.add_argument("--format", help=argparse.SUPPRESS)
    parser.add_argument("--accepts-loss", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--server", help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["SEQURITY_LABEL_KEY"] = LABEL_KEY
    if options.turn is not None:
        case = replace(make_case(options.only, options.way), format=options.format)
        from_parent = (options.server, options.report)
        take_turn(case, options.turn, *from_parent, accepts_loss=options.accepts_loss)
        return 0
    if options.only is not None:
        with Stage() as stage:
            outcome = play(make_case(options.only, options.way), stage)
        _report(outcome, shows_all=True)
        return bool(outcome.violations)
    numbers = range(options.seed, options.seed + options.count)
    cases = (make_case(number, options.way) for number in numbers)
    return _play_all((c for c in cases if options.driver in (None, c.driver)), options.jobs)


def _play_all(cases: Iterable[Case], jobs: int) -> int:
    totals, losses, failures = Counter[str](), Counter[str](), Counter[str]()
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=open_stage) as pool:
        outcomes = pool.imap_unordered(play_here, cases, chunksize=5)
        for outcome in tracked(outcomes, "Playing", unit="conversations"):
            place = f"{outcome.case.way}, {outcome.case.driver}"
            totals += outcome.counts
            totals["conversations"] += 1
            totals["conversations with strange errors"] += bool(outcome.strange)
            totals["conversations with false alarms"] += bool(outcome.false_alarms)
            losses.update(f"{error}: {place}, after {e[-1]}" for error, e, _ in outcome.losses)
            if outcome.violations:
                failures[place] += 1
            _report(outcome, shows_all=False)
            if totals["conversations"] % _PROGRESS == 0:
                hide()
                sys.stderr.write(f"{totals['conversations']} played, {len(failures)} places fail\n")
    for title, counts in (("", totals), ("lost: ", losses), ("VIOLATIONS: ", failures)):
        for name, number in sorted(counts.items()):
            sys.stdout.write(f"{title}{name}: {number}\n")
    return bool(failures or totals["conversations with strange errors"])


if __name__ == "__main__":
    sys.exit(main())
