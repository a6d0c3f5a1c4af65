# SPDX-License-Identifier: BSD-2-Clause
"""The effects: what carries out the core's actions and tells it what happened."""
