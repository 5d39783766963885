# SPDX-License-Identifier: LGPL-2.1-or-later
# A server as bytes, and back.
