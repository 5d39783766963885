# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program's command line: what is wanted, and who does it."""

from __future__ import annotations

import sys

from pyxsd.start import fresh
from pyxsd.system import background, configuration, options
from pyxsd.system.stdio import STDERR, STDOUT, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyxsd.switch import c_options
    from pyxsd.system.options import Options


def main(argv: list[str] | None = None) -> int:
    """Runs the daemon; the exit status."""
    background.ensure_stdio()
    background.hear_signals()
    words = sys.argv[1:] if argv is None else argv
    parsed: Options | options.Exit | c_options.Line = (
        _c_line(words) if options.may_be_c_line(words) else options.parse(words)
    )
    line = None
    if not isinstance(parsed, (options.Options, options.Exit)):
        line, parsed = parsed, parsed.options
    if isinstance(parsed, options.Options) and parsed.config_test:
        parsed = options.check_config(parsed.config_file, parsed.live)
    if isinstance(parsed, options.Exit):
        say(STDOUT, parsed.stdout)
        say(STDERR, parsed.stderr)
        return parsed.status
    # What follows is loaded where it is wanted: most daemons start by themselves.
    if parsed.show_state or parsed.replay:
        from pyxsd import offline

        if parsed.show_state:
            return offline.show_state(parsed.show_state, parsed.as_format)
        return offline.replay(parsed.replay, parsed.until, parsed.as_format)
    config, faults = configuration.load(parsed.config_file)
    if parsed.take_over:
        from pyxsd.start import update

        return update.take_over(config, parsed, faults)
    if parsed.live and parsed.restart:
        from pyxsd.start import switched

        return switched.switch(config, parsed, line, faults)
    return fresh.start(config, parsed, faults)


def _c_line(words: list[str]) -> Options | options.Exit | c_options.Line:
    """What the command line says, by C xenstored's rules where it is C's."""
    from pyxsd.switch import c_options

    return c_options.read(words) if c_options.is_c_line(words) else options.parse(words)
