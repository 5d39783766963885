# SPDX-License-Identifier: LGPL-2.1-or-later
"""`pyxsd-bench report`: result files in, one HTML page or one Markdown document out.

The page and the document are the two templates in templates/.
"""

from __future__ import annotations

import argparse
import sys

import jinja2

from . import plots, results, svg, tables
from .attacks import report as attacks
from .summary import Summary

OK, BAD_INPUT = 0, 2
PAGE, DOCUMENT = "report.html.j2", "report.md.j2"


def render(summary: Summary, template: str) -> str:
    """The page (PAGE), which needs no other file, or the document (DOCUMENT)."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(
        summary=summary, tables=tables, attacks=attacks, plots=plots, plot_style=svg.STYLE
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("result", nargs="+", help="result files")
    parser.add_argument("--html", metavar="FILE", help="write the page there (report.html)")
    parser.add_argument("--markdown", metavar="FILE", help="write the Markdown document there")
    parser.add_argument("--plots", metavar="FOLDER", help="write the plots there as SVG files")


def run(options: argparse.Namespace) -> int:
    """Writes what was asked for; the page where nothing was.  Names each unusable file."""
    files, status = [], OK
    for path in options.result:
        try:
            files.append((path, results.load(path)))
        except results.BadResult as error:
            print(f"pyxsd-bench: {error}", file=sys.stderr)
            status = BAD_INPUT
    if not files:
        return BAD_INPUT
    summary = Summary(files)
    wanted = [(options.html, PAGE), (options.markdown, DOCUMENT)]
    if not options.html and not options.markdown and not options.plots:
        wanted = [("report.html", PAGE)]
    for path, template in wanted:
        if not path:
            continue
        try:
            with open(path, "w", encoding="utf-8") as out:
                out.write(render(summary, template))
        except OSError as error:
            print(f"pyxsd-bench: {path}: {error.strerror}", file=sys.stderr)
            return BAD_INPUT
        print(path)
    if options.plots:
        try:
            plots.write(summary, options.plots)
        except OSError as error:
            print(f"pyxsd-bench: {error.filename}: {error.strerror}", file=sys.stderr)
            return BAD_INPUT
        print(options.plots)
    return status
