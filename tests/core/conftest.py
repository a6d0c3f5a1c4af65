# SPDX-License-Identifier: BSD-2-Clause
"""How Hypothesis runs here: a busy machine must never fail a property."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "house", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")
