# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ways in which a process comes to serve: by itself, by a live update, by a live switch."""
