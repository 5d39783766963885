# SPDX-License-Identifier: LGPL-2.1-or-later
"""The process in its surroundings: command line, configuration, logs, pid file."""
