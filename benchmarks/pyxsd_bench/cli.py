# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line `pyxsd-bench`."""

from __future__ import annotations

import argparse
import sys

from . import compare, quick, report, runner, scenarios

DESCRIPTION = "Measures any xenstored: the same scenarios for each daemon, side by side."


def _list(options: argparse.Namespace) -> int:
    for scenario in scenarios.ALL:
        where = (
            f" ({scenario.axis}: {', '.join(map(str, scenario.sizes))})" if scenario.axis else ""
        )
        print(f"{scenario.name}: {scenario.title}{where}. {scenario.why}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pyxsd-bench", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text, arguments, function in (
        ("run", "measure daemons, write a result file", runner.arguments, runner.run),
        ("report", "make a page of result files", report.arguments, report.run),
        ("compare", "say what changed between two result files", compare.arguments, compare.run),
        ("list", "the scenarios", None, _list),
        ("load", "load one running daemon and print figures", quick.arguments, quick.run),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if arguments:
            arguments(command)
        command.set_defaults(function=function)
    options = parser.parse_args(argv)
    return int(options.function(options))


if __name__ == "__main__":
    sys.exit(main())
