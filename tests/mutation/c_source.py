# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mutants of C sources.

Only what stands in the body of a function is changed.  Three forms are written:

    if (pyxsd_is(4) ? (n >= max) : (n > max))       a condition, and a declaration's value
    (pyxsd_is(3) ? 8 : 7)                           a constant, in place
    { if (pyxsd_is(5)) return 0; else return n; }   a statement

A statement that begins with a type is a declaration: TYPES names those that the sources use.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from tests.mutation.operators import WORD, Change, Token, of_constants, of_operators
from tests.mutation.schema import Mutated, Numbers

TOKEN = re.compile(
    r"(?P<skip>/\*.*?\*/|//[^\n]*|^[ \t]*\#(?:[^\n\\]|\\.)*|\s+)"
    r"|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
    r"|[A-Za-z_]\w*|0[xX][0-9a-fA-F]+[uUlL]*|\d+\.?\d*(?:[eE][-+]?\d+)?[uUlLfF]*"
    r"|->|\+\+|--|<<=|>>=|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|.",
    re.DOTALL | re.MULTILINE,
)
TYPES = frozenset(
    "const struct static int unsigned long char void size_t ssize_t uint8_t uint16_t "
    "uint32_t uint64_t uintptr_t xsd_glue xen_handle enum union FILE".split()
)
HEAD = '#include "mutant.h"\n'
CHOICE = "pyxsd_is"


def tokens_of(source: str) -> list[Token]:
    """The tokens of a source, without comments and lines of the preprocessor."""
    return [
        Token(m.group(), m.start(), m.end()) for m in TOKEN.finditer(source) if not m.group("skip")
    ]


def matching(tokens: list[Token], at: int) -> int:
    """Where the bracket that opens at `at` is closed."""
    depth = 0
    for i in range(at, len(tokens)):
        if tokens[i].text in ("(", "[", "{"):
            depth += 1
        elif tokens[i].text in (")", "]", "}"):
            depth -= 1
            if depth == 0:
                return i
    raise ValueError("a bracket is not closed")


def bodies(tokens: list[Token]) -> Iterator[list[Token]]:
    """The tokens between the braces of each function."""
    i = 0
    while i < len(tokens):
        if tokens[i].text == "{":
            end = matching(tokens, i)
            if tokens[i - 1].text == ")":
                yield tokens[i + 1 : end]
            i = end
        i += 1


class Writer:
    """Writes one source with its mutants."""

    def __init__(self, path: str, source: str, first: int, wanted: Container[str] | None) -> None:
        self.source = source
        self.numbers = Numbers(path, source, first, wanted)
        self.edits: list[tuple[int, int, str]] = []  # begin, end, what comes there

    def constants(self, statement: tuple[int, int], tokens: list[Token]) -> str:
        """The text of the tokens with the mutants of the constants in it."""
        text, at = "", tokens[0].begin
        for change in of_constants(tokens):
            number = self.numbers.add(statement, change)
            old = self.source[change.begin : change.end]
            if number:
                text += self.source[at : change.begin]
                text += f"({CHOICE}({number}) ? {change.text} : {old})"
                at = change.end
        return text + self.source[at : tokens[-1].end]

    def expression(self, tokens: list[Token], condition: bool) -> None:
        """A condition, or the value of a declaration."""
        begin, end = tokens[0].begin, tokens[-1].end
        changes = list(of_operators(tokens))
        if condition and tokens[0].text != "!":
            changes.append(Change("negation", begin, end, f"!({self.source[begin:end]})"))
        text = ""
        for change in changes:
            number = self.numbers.add((begin, end), change)
            if number:
                other = (
                    self.source[begin : change.begin] + change.text + self.source[change.end : end]
                )
                text += f"{CHOICE}({number}) ? ({other}) : "
        self.edits.append((begin, end, f"{text}({self.constants((begin, end), tokens)})"))

    def statement(self, tokens: list[Token]) -> None:
        """A statement with its semicolon."""
        begin, end = tokens[0].begin, tokens[-1].end
        words = [token.text for token in tokens]
        changes = list(of_operators(tokens))
        if words[0] != "return":
            changes.append(Change("deletion", begin, end, ";"))
        elif len(words) > 2 and words[1:-1] != ["0"]:
            changes.append(Change("return value", tokens[1].begin, tokens[-2].end, "0"))
        elif len(words) == 2:
            changes.append(Change("deletion", begin, end, ";"))
        text = ""
        for change in changes:
            number = self.numbers.add((begin, end), change)
            if number:
                other = (
                    self.source[begin : change.begin] + change.text + self.source[change.end : end]
                )
                text += f"if ({CHOICE}({number})) {{ {other} }} else "
        text += self.constants((begin, end), tokens)
        self.edits.append((begin, end, f"{{ {text} }}"))

    def declaration(self, tokens: list[Token]) -> None:
        """type name = value, other = value;"""
        if tokens[0].text == "static" or any(token.text == "{" for token in tokens):
            return
        i = 0
        while i < len(tokens):
            if tokens[i].text in ("(", "["):
                i = matching(tokens, i)
            elif tokens[i].text == "=":
                k = i + 1
                while tokens[k].text not in (",", ";"):
                    k = matching(tokens, k) + 1 if tokens[k].text in ("(", "[") else k + 1
                self.expression(tokens[i + 1 : k], condition=False)
                i = k
            i += 1

    def body(self, tokens: list[Token]) -> None:
        """The statements between two braces."""
        i = 0
        while i < len(tokens):
            word = tokens[i].text
            if word in ("if", "while", "switch", "for"):
                end = matching(tokens, i + 1)
                inner = tokens[i + 2 : end]
                if word == "for":
                    cuts = [k for k, token in enumerate(inner) if token.text == ";"]
                    inner = inner[cuts[0] + 1 : cuts[1]]
                if inner and word != "switch":
                    self.expression(inner, condition=True)
                i = end + 1
                if word == "while" and i < len(tokens) and tokens[i].text == ";":
                    i += 1
            elif word in ("{", "}", ";", "else", "do"):
                i += 1
            elif word in ("case", "default") or (i + 1 < len(tokens) and tokens[i + 1].text == ":"):
                while tokens[i].text != ":":
                    i += 1
                i += 1
            else:
                end = i
                while tokens[end].text != ";":
                    end = matching(tokens, end) + 1 if tokens[end].text in "([{" else end + 1
                statement = tokens[i : end + 1]
                named = WORD.match(word) and WORD.match(statement[1].text)
                if word in TYPES or (named and word not in ("return", "goto")):
                    self.declaration(statement)
                else:
                    self.statement(statement)
                i = end + 1

    def run(self) -> Mutated:
        """The whole source."""
        for tokens in bodies(tokens_of(self.source)):
            self.body(tokens)
        text, at = "", 0
        origin: list[int] = []
        for begin, end, new in [*sorted(self.edits), (len(self.source),) * 2 + ("",)]:
            line = self.source.count("\n", 0, at) + 1
            kept = self.source[at:begin]
            text += kept + new
            origin += range(line, line + kept.count("\n"))
            origin += [self.source.count("\n", 0, begin) + 1] * new.count("\n")
            at = end
        return Mutated(HEAD + text, self.numbers.mutants, [1, *origin])


def mutate(path: str, source: str, first: int, wanted: Container[str] | None = None) -> Mutated:
    """A C source with its mutants, or with those whose keys are wanted."""
    return Writer(path, source, first, wanted).run()
