# SPDX-License-Identifier: LGPL-2.1-or-later
"""python -m tests.mutation: tries small changes of the sources against the tests.

    python -m tests.mutation                          12 mutants of each module
    python -m tests.mutation _ring state/dump         only modules whose path has one of the words
    python -m tests.mutation --sample 20              20 of all modules, as CI does
    python -m tests.mutation --report                 the table of what is known, without a run

A run goes on where the last one ended: what was noticed is not tried again, survivors are.
--again tries everything again.  Ends with status 1 where fewer than --least per cent are noticed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time

from tests.mutation.modules import TESTS, modules
from tests.mutation.results import BROKEN, HUNG, NOTICED, Results
from tests.mutation.runner import Known, Runner, record, share
from tests.mutation.schema import Mutant, chosen
from tests.mutation.tree import WORK, build, mutate

PER_MODULE = 12


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help="parts of the modules' paths; none: all modules")
    parser.add_argument("--per-module", type=int, default=PER_MODULE, metavar="N")
    parser.add_argument("--sample", type=int, metavar="N", help="N mutants of all modules")
    parser.add_argument("--seed", help="another choice; printed, so that it can be had again")
    parser.add_argument("--least", type=float, default=85, metavar="PERCENT")
    parser.add_argument("--again", action="store_true", help="also try what is known")
    parser.add_argument(
        "--tests", nargs="+", default=TESTS, metavar="PATH", help="try only these tests"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--report", action="store_true", help="only print what is known")
    return parser.parse_args()


def choice(options: argparse.Namespace, results: Results) -> list[Mutant]:
    """The mutants that the command line asks for."""
    found: list[Mutant] = []
    for module in modules():
        if not options.words or any(word in module for word in options.words):
            found += [
                mutant
                for mutant in mutate(module, 1).mutants
                if mutant.key not in results.equivalent or not options.sample
            ]
    if options.sample:
        seed = options.seed or str(random.SystemRandom().randrange(10**6))
        print(f"a sample of {options.sample} of {len(found)} mutants, --seed {seed}", flush=True)
        return chosen(found, options.sample, seed)
    return [
        mutant
        for module in modules()
        for mutant in chosen(
            [m for m in found if m.path == module], options.per_module, options.seed or ""
        )
    ]


def attempt(mutants: list[Mutant], results: Results, options: argparse.Namespace) -> None:
    """Tries those that are not known to be noticed or equivalent."""
    again = options.again or options.sample
    wanted = {
        mutant.key
        for mutant in mutants
        if mutant.key not in results.equivalent
        and (again or results.of(mutant) not in (NOTICED, HUNG, BROKEN))
    }
    if not wanted:
        return
    numbers, broken = build(mutants)
    for mutant in broken:
        results.set(mutant, BROKEN)
    known = Known(numbers)
    runners = [Runner(known, number, options.tests) for number in range(options.jobs)]

    def one(runner: Runner, number: int) -> None:
        begin = time.monotonic()
        result, by = runner.attempt(number)
        mutant = numbers[number]
        results.set(mutant, result, by)
        print(
            f"{time.monotonic() - begin:5.1f} s {result:<9} {mutant.path}:{mutant.line}: "
            f"{mutant.operator}: {mutant.before} -> {mutant.after}",
            flush=True,
        )

    try:
        record(runners)
        share(runners, one, [number for number, mutant in numbers.items() if mutant.key in wanted])
    finally:
        for runner in runners:
            runner.close()


def main() -> int:
    """The command line; its exit status."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    WORK.mkdir(parents=True, exist_ok=True)
    results = Results(WORK / ("sample.json" if options.sample else "results.json"))
    mutants = choice(options, results)
    if not options.report:
        attempt(mutants, results, options)
    print(results.table(mutants))
    noticed, tried = results.counts(mutants)
    return int(bool(tried) and noticed * 100 < options.least * tried)


if __name__ == "__main__":
    sys.exit(main())
