# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mutants of Python and Cython sources.

The source is read as lines of tokens, not parsed: Cython's grammar is Python's with types, and
its tokens are the same.  Four forms are written:

    (8 if pyxsd_is(3) else 7)                       a constant, in place
    if ((a >= b) if pyxsd_is(4) else (a > b)):      a condition
    if pyxsd_is(5): ... elif ...: ... else: ...     a statement
    cdef int n = a + b; if pyxsd_is(6): n = a - b   a declaration with a value
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Container, Iterable, Iterator

from tests.mutation.operators import WORD, Change, Token, of_constants, of_operators
from tests.mutation.schema import Mutated, Numbers

LEFT_OUT = {
    "import",
    "from",
    "cimport",
    "def",
    "class",
    "@",
    "pass",
    "try",
    "except",
    "finally",
    "else",
    "with",
    "assert",
    "global",
    "nonlocal",
    "ctypedef",
    "include",
    "async",
    "TYPE_CHECKING",
    "__all__",
}
#: Blocks without code: declarations of C, and what only type checkers read.
DECLARATIONS = re.compile(
    r"cdef\s+(extern|enum|struct|union|packed)|ctypedef|if\s+TYPE_CHECKING|cdef\s*:|cpdef\s+enum"
)
CHOICE = "pyxsd_is"
PYTHON_HEAD = "from pyxsd_mutant import pyxsd_is\n"
CYTHON_HEAD = 'cdef extern from "mutant.h":\n    bint pyxsd_is(int number) noexcept nogil\n'


class Line:
    """A logical line: its tokens without comments, and the headers of the blocks it lies in."""

    def __init__(self, tokens: list[Token], indent: str, blocks: list[str]) -> None:
        self.tokens = tokens
        self.indent = indent
        self.blocks = blocks

    @property
    def begin(self) -> int:
        return self.tokens[0].begin

    @property
    def end(self) -> int:
        return self.tokens[-1].end

    @property
    def words(self) -> list[str]:
        return [token.text for token in self.tokens]


def lines_of(source: str) -> Iterator[Line]:
    """The logical lines of a source."""
    starts = [0]
    for text in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
    blocks: list[str] = []
    tokens: list[Token] = []
    header = indent = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        begin = starts[token.start[0] - 1] + token.start[1]
        end = starts[token.end[0] - 1] + token.end[1]
        if token.type == tokenize.INDENT:
            blocks.append(header)
        elif token.type == tokenize.DEDENT:
            blocks.pop()
        elif token.type == tokenize.NEWLINE:
            first = source.rfind("\n", 0, tokens[0].begin) + 1
            indent = source[first : tokens[0].begin]
            yield Line(tokens, indent, list(blocks))
            header = source[tokens[0].begin : end]
            tokens = []
        elif (
            token.type not in (tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER)
            and token.string.strip()
        ):
            tokens.append(Token(token.string, begin, end))


def top(tokens: list[Token], *texts: str) -> list[int]:
    """Where one of the texts stands outside all brackets."""
    depth, found = 0, []
    for i, token in enumerate(tokens):
        if token.text in ("(", "[", "{"):
            depth += 1
        elif token.text in (")", "]", "}"):
            depth -= 1
        elif depth == 0 and token.text in texts:
            found.append(i)
    return found


def deleted(line: Line) -> bool:
    """May the statement be left out?  Not where a name would have no value after it."""
    words = line.words
    if words[0] in ("continue", "break", "raise", "del") or words == ["return"]:
        return True
    if words[0] in ("return", "yield", "cdef", "super"):
        return False
    equals = top(line.tokens, "=")
    if equals:
        return words[equals[0] - 1] == "]" or "." in words[: equals[0]]
    return words[-1] == ")" or bool(top(line.tokens, "+=", "-=", "*=", "|=", "&="))


def whole_statement(source: str, line: Line, cython: bool) -> Iterator[Change]:
    """Deleted statements, other results, ternaries with their branches swapped."""
    words = line.words
    if deleted(line):
        yield Change("deletion", line.begin, line.end, "pass")
    if words[0] == "return" and len(words) > 1:
        function = next((b for b in reversed(line.blocks) if re.match(r"c?p?def\b", b)), "")
        typed = cython and not function.startswith("def")
        other = "0" if typed else "None"
        if words[1:] not in ([other], ["True"], ["False"]) and not words[1].isdigit():
            yield Change("return value", line.tokens[1].begin, line.end, other)
    ifs, elses = top(line.tokens, "if"), top(line.tokens, "else")
    if len(ifs) == 1 and len(elses) == 1:
        begin, end = line.tokens[ifs[0] + 1].begin, line.tokens[elses[0] - 1].end
        yield Change("swapped branches", begin, end, f"not ({source[begin:end]})")


class Writer:
    """Writes one source with its mutants."""

    def __init__(self, path: str, source: str, first: int, wanted: Container[str] | None) -> None:
        self.cython = not path.endswith(".py")
        self.source = source
        self.numbers = Numbers(path, source, first, wanted)
        self.parts: list[str] = []
        self.origin: list[int] = []
        self.at = 0  # how much of the source was written

    def write(self, text: str) -> None:
        """Adds text that stands for the source at `at`."""
        self.parts.append(text)
        self.origin += [self.source.count("\n", 0, self.at) + 1] * text.count("\n")

    def copy(self, end: int) -> None:
        """Adds the source up to there as it is."""
        line = self.source.count("\n", 0, self.at) + 1
        text = self.source[self.at : end]
        self.parts.append(text)
        self.origin += range(line, line + text.count("\n"))
        self.at = end

    def inline(self, line: Line, tokens: list[Token]) -> str:
        """The text of the tokens with the mutants of the constants in it."""
        text, at = "", tokens[0].begin
        for change in of_constants(tokens):
            number = self.numbers.add((line.begin, line.end), change)
            old = self.source[change.begin : change.end]
            if number:
                text += self.source[at : change.begin]
                text += f"({change.text} if {CHOICE}({number}) else {old})"
                at = change.end
        return text + self.source[at : tokens[-1].end]

    def alternatives(
        self, line: Line, changes: Iterable[Change], begin: int, end: int
    ) -> Iterator[tuple[int, str]]:
        """(number, the text from begin to end with the change) for each change."""
        for change in changes:
            number = self.numbers.add((line.begin, line.end), change)
            if number:
                yield (
                    number,
                    (
                        self.source[begin : change.begin]
                        + change.text
                        + self.source[change.end : end]
                    ),
                )

    def condition(self, line: Line) -> None:
        """if, elif and while."""
        tokens = line.tokens[1:-1]
        begin, end = tokens[0].begin, tokens[-1].end
        self.copy(begin)
        negation = Change("negation", begin, end, f"not ({self.source[begin:end]})")
        changes = list(of_operators(tokens))
        if not any(c.operator == "boolean" and c.text == "" for c in changes):
            changes.append(negation)
        text = "("
        for number, other in self.alternatives(line, changes, begin, end):
            text += f"(not not ({other})) if {CHOICE}({number}) else\n  "
        text += f"(not not ({self.inline(line, tokens)})))"
        self.write(text)
        self.at = end

    def statement(self, line: Line) -> None:
        """What can stand in a branch of its own."""
        self.copy(line.begin)
        equals, colons = top(line.tokens, "="), top(line.tokens, ":")
        tokens = line.tokens
        if colons and "lambda" not in line.words:  # behind it an annotation, which does nothing
            if not equals:
                return
            tokens = tokens[equals[0] :]
        changes = [*of_operators(tokens), *whole_statement(self.source, line, self.cython)]
        word = "if"
        text = ""
        for number, other in self.alternatives(line, changes, line.begin, line.end):
            text += f"{word} {CHOICE}({number}):\n{line.indent}  {other}\n{line.indent}"
            word = "elif"
        original = self.source[line.begin : tokens[0].begin] + self.inline(line, tokens)
        text += f"else:\n{line.indent}  {original}" if word == "elif" else original
        self.write(text)
        self.at = line.end

    def declaration(self, line: Line) -> None:
        """cdef int n = a + b: the value once more behind it, changed."""
        equals = top(line.tokens, "=")
        if len(equals) != 1 or top(line.tokens, ",") or not line.blocks:
            return
        value = line.tokens[equals[0] + 1 :]
        name = line.tokens[equals[0] - 1].text
        self.copy(value[0].begin)
        end = line.end
        calls = any(WORD.match(a.text) and b.text == "(" for a, b in zip(value, value[1:]))
        changes = [] if calls else list(of_operators(value))
        text = self.inline(line, value)
        for number, other in self.alternatives(line, changes, value[0].begin, end):
            text += f"\n{line.indent}if {CHOICE}({number}): {name} = {other}"
        self.write(text)
        self.at = end

    def run(self) -> Mutated:
        """The whole source."""
        headed = False
        for line in lines_of(self.source):
            words = line.words
            plain = words[0][0] not in "\"'" and not words[0].startswith(('r"', 'b"'))
            if not headed and plain and words[:2] != ["from", "__future__"]:
                self.copy(self.source.rfind("\n", 0, line.begin) + 1)
                self.write(CYTHON_HEAD if self.cython else PYTHON_HEAD)
                headed = True
            if (
                words[0] in LEFT_OUT
                or not plain
                or any(DECLARATIONS.match(block) for block in line.blocks)
                or DECLARATIONS.match(self.source[line.begin : line.end])
            ):
                continue
            if words[0] in ("if", "elif", "while"):
                if words[-1] == ":":
                    self.condition(line)
            elif words[0] == "for":
                self.copy(line.begin)
                self.write(self.inline(line, line.tokens))
                self.at = line.end
            elif words[0] in ("cdef", "cpdef"):
                if words[-1] != ":":
                    self.declaration(line)
            elif words[-1] != ":":
                self.statement(line)
        self.copy(len(self.source))
        return Mutated("".join(self.parts), self.numbers.mutants, self.origin)


def mutate(path: str, source: str, first: int, wanted: Container[str] | None = None) -> Mutated:
    """A Python or Cython source with its mutants, or with those whose keys are wanted."""
    return Writer(path, source, first, wanted).run()
