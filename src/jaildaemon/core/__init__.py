# SPDX-License-Identifier: BSD-2-Clause
"""What jaildaemon decides, without a clock, a socket or an operating system."""
