# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compiles the load generator; everything else stands in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["load_build.py:ffibuilder"])
