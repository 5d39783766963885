# SPDX-License-Identifier: LGPL-2.1-or-later
"""`pyxsd-bench report`: result files in, one HTML page or one Markdown document out."""

from __future__ import annotations

import argparse
import os
import re
import sys

from . import report_html, report_markdown, results, svg
from .summary import Summary

OK, BAD_INPUT = 0, 2


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
    wanted = [(options.html, report_html.page), (options.markdown, report_markdown.document)]
    if not options.html and not options.markdown and not options.plots:
        wanted = [("report.html", report_html.page)]
    for path, make in wanted:
        if not path:
            continue
        try:
            with open(path, "w", encoding="utf-8") as out:
                out.write(make(summary))
        except OSError as error:
            print(f"pyxsd-bench: {path}: {error.strerror}", file=sys.stderr)
            return BAD_INPUT
        print(path)
    if options.plots:
        try:
            write_plots(summary, options.plots)
        except OSError as error:
            print(f"pyxsd-bench: {error.filename}: {error.strerror}", file=sys.stderr)
            return BAD_INPUT
        print(options.plots)
    return status


def write_plots(summary: Summary, folder: str) -> None:
    """One SVG file for each plot, named after scenario and measure."""
    os.makedirs(folder, exist_ok=True)
    for name in summary.scenarios:
        for measure in summary.measures(name):
            stem = re.sub("[^a-z0-9]+", "-", f"{name}-{measure}".lower()).strip("-")
            for kind, drawing in (
                ("size", report_html.size_plot(summary, name, measure)),
                ("latency", report_html.latency_plot(summary, name, measure)),
            ):
                if not drawing:
                    continue
                with open(os.path.join(folder, f"{stem}-{kind}.svg"), "w", encoding="utf-8") as out:
                    out.write(svg.alone(drawing.drawing) + "\n")
