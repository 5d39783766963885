# SPDX-License-Identifier: LGPL-2.1-or-later
"""python -m tests.mutation.renew REVISION: equivalent.json after sources got another layout.

The keys of mutants hold the text of statements.  Where a formatter has only laid out the sources
anew since REVISION, each has the same mutants in the same order: an entry of then gets the key of
now.  What is not found again stays, and is named; the status is 1 then.
"""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys

from tests.mutation import c_source, python_source
from tests.mutation.results import EQUIVALENT
from tests.mutation.schema import Mutant
from tests.mutation.tree import PROJECT, mutate


def mutants_at(revision: str, path: str) -> list[Mutant]:
    """The mutants of a source as it was; none where it was not there."""
    done = subprocess.run(
        ["git", "show", f"{revision}:{path}"],
        cwd=PROJECT,
        text=True,
        stdout=subprocess.PIPE,
        check=False,
    )
    language = c_source if path.endswith(".c") else python_source
    return language.mutate(path, done.stdout, 1).mutants if done.returncode == 0 else []


def plain(mutant: Mutant) -> str:
    """What a formatter leaves alone: no blanks, brackets, or commas, and one kind of quotes."""
    return re.sub(r"[\s(),\\]", "", f"{mutant.operator}{mutant.before}>{mutant.after}").replace(
        "'", '"'
    )


def renewed(old: list[Mutant], new: list[Mutant]) -> dict[str, str]:
    """{key of then: key of now} of one source."""
    pairs: dict[str, str] = {}
    matcher = difflib.SequenceMatcher(None, [*map(plain, old)], [*map(plain, new)], autojunk=False)
    for block in matcher.get_matching_blocks():
        for k in range(block.size):
            pairs[old[block.a + k].key] = new[block.b + k].key
    return pairs


def main() -> int:
    """The command line; its exit status."""
    entries: dict[str, str] = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    keys: dict[str, str] = {}
    for path in sorted({key.partition(": ")[0] for key in entries}):
        keys.update(renewed(mutants_at(sys.argv[1], path), mutate(path, 1).mutants))
    lost = [key for key in entries if key not in keys]
    found = {keys.get(key, key): reason for key, reason in entries.items()}
    EQUIVALENT.write_text(
        json.dumps(dict(sorted(found.items())), indent=1) + "\n", encoding="utf-8"
    )
    print(*(f"not found again: {key}" for key in lost), sep="\n")
    print(f"{len(keys.keys() & entries.keys())} of {len(entries)} entries are found")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
