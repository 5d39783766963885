# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compiles the load generator; everything else stands in pyproject.toml."""

import setuptools

# setuptools knows license_expression since 77; Debian 12 has 66, EL10 has 69.
licence = "license_expression" if int(setuptools.__version__.split(".")[0]) >= 77 else "license"

setuptools.setup(cffi_modules=["load_build.py:ffibuilder"], **{licence: "LGPL-2.1-or-later"})
