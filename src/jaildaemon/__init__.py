# SPDX-License-Identifier: BSD-2-Clause
"""A fixed command-line interface for jails to their host system."""

__version__ = "0.2.0"
