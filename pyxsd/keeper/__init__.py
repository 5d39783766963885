# SPDX-License-Identifier: LGPL-2.1-or-later
"""The process that is started, which keeps the descriptors and makes the daemon proper anew."""
