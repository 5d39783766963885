# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line `pyxsd-bench`."""

from __future__ import annotations

import argparse
import os
import sys

from . import __version__, compare, quick, report, runner, scenarios, show

DESCRIPTION = "Measures any xenstored: the same scenarios for each daemon, side by side."


def _list(options: argparse.Namespace) -> int:
    show.table(
        ["scenario", "what", "sizes", "why"],
        [[s.name, s.title, _sizes(s), s.why] for s in (*scenarios.ALL, *scenarios.ATTACKS)],
        left=4,
    )
    return 0


def _sizes(scenario: scenarios.Scenario) -> str:
    """As "1 to 300 guests"."""
    if not scenario.axis:
        return ""
    return f"{scenario.sizes[0]:,} to {scenario.sizes[-1]:,} {scenario.axis}"


def main(argv: list[str] | None = None) -> int:
    compares = "say what changed between two result files, or judge the two builds of one"
    parser = argparse.ArgumentParser(prog="pyxsd-bench", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"pyxsd-bench {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text, arguments, function in (
        ("run", "measure daemons, write a result file", runner.arguments, runner.run),
        ("report", "make a page of result files", report.arguments, report.run),
        ("compare", compares, compare.arguments, compare.run),
        ("list", "the scenarios", None, _list),
        ("load", "load one running daemon and print figures", quick.arguments, quick.run),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if arguments:
            arguments(command)
        command.set_defaults(function=function)
    options = parser.parse_args(argv)
    try:
        status = int(options.function(options))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has seen enough; Python would complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
