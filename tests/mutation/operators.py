# SPDX-License-Identifier: LGPL-2.1-or-later
"""The mutation operators: small changes to a run of tokens, the same for C, Cython and Python.

A change replaces the text of one token, for example `<` by `<=`.  Changes of constants are kept
apart from the others because a source with many mutants writes them in place, see python_source.
What needs a whole statement (to delete it, to negate its condition, to return something else) is
done by the module that knows the language.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Token(NamedTuple):
    """A token's text and where it lies in its source, in characters from the source's start."""

    text: str
    begin: int
    end: int


class Change(NamedTuple):
    """The source's text from begin to end becomes `text`; `operator` says which kind it is."""

    operator: str
    begin: int
    end: int
    text: str


#: operator: what becomes of a token that stands between two operands
BINARY: dict[str, dict[str, str]] = {
    "comparison": {
        "<": "<=",
        "<=": "<",
        ">": ">=",
        ">=": ">",
        "==": "!=",
        "!=": "==",
    },
    "boolean": {"and": "or", "or": "and", "&&": "||", "||": "&&"},
    "arithmetic": {
        "+": "-",
        "-": "+",
        "*": "+",
        "/": "*",
        "//": "*",
        "%": "*",
        "&": "|",
        "|": "&",
        "^": "&",
        "<<": ">>",
        ">>": "<<",
        "+=": "-=",
        "-=": "+=",
        "*=": "+=",
        "|=": "&=",
        "&=": "|=",
    },
}

#: Words that are no operands: what follows one is not a binary operator.
WORDS = frozenset(
    "and or not in is if elif else while for return yield lambda raise assert del print await "
    "case goto sizeof".split()
)

WORD = re.compile(r"[A-Za-z_]\w*\Z")
NUMBER = re.compile(r"(?:0[xX][0-9a-fA-F]+|\d+\.?\d*(?:[eE][-+]?\d+)?)[uUlL]*\Z")
STRING = re.compile(r"[A-Za-z]{0,3}[\"']")


def is_operand(token: Token) -> bool:
    """Can the token end an operand, so that an operator behind it has two sides?"""
    if token.text in (")", "]") or STRING.match(token.text) or NUMBER.match(token.text):
        return True
    return bool(WORD.match(token.text)) and token.text not in WORDS


def casts(tokens: Sequence[Token]) -> set[int]:
    """Indices of the tokens of Cython's casts: <size_t>n, <const char *>p."""
    found = set()
    for i, token in enumerate(tokens):
        if token.text != "<" or (i and is_operand(tokens[i - 1])):
            continue
        for k in range(i + 1, len(tokens)):
            if tokens[k].text == ">":
                found |= set(range(i, k + 1))
                break
    return found


def of_operators(tokens: Sequence[Token]) -> Iterator[Change]:
    """Comparisons, boolean and arithmetic operators of an expression or a statement."""
    typed = casts(tokens)
    for i, token in enumerate(tokens):
        if i in typed or i == 0 or i + 1 == len(tokens):
            continue
        before, after = tokens[i - 1], tokens[i + 1]
        for operator, table in BINARY.items():
            # A string in front of % is a format, one beside + is text: neither has a numeric twin.
            text = STRING.match(before.text) or STRING.match(after.text)
            if (
                token.text in table
                and is_operand(before)
                and i - 1 not in typed
                and after.text not in (")", ",", "]")
                and not (operator == "arithmetic" and text)
            ):
                yield Change(operator, token.begin, token.end, table[token.text])
        if token.text == "in" and before.text != "not" and "for" not in (t.text for t in tokens):
            yield Change("comparison", token.begin, token.end, "not in")
        if token.text == "is":
            if after.text == "not":
                yield Change("comparison", token.begin, after.end, "is")
            else:
                yield Change("comparison", token.begin, token.end, "is not")
        if token.text == "not" and after.text == "in":
            yield Change("comparison", token.begin, after.end, "in")
        elif token.text in ("not", "!") and before.text != "is":
            yield Change("boolean", token.begin, token.end, "")
    if tokens and tokens[0].text in ("not", "!"):
        yield Change("boolean", tokens[0].begin, tokens[0].end, "")


def of_constants(tokens: Sequence[Token]) -> Iterator[Change]:
    """Numbers become one more; True and False change places."""
    typed = casts(tokens)
    for i, token in enumerate(tokens):
        if i in typed:
            continue
        if NUMBER.match(token.text):
            yield Change("constant", token.begin, token.end, f"({token.text} + 1)")
        elif token.text in ("True", "False"):
            yield Change("constant", token.begin, token.end, str(token.text == "False"))
