# SPDX-License-Identifier: LGPL-2.1-or-later
IS_DEBUG: bool

def crash(word: bytes) -> None: ...
