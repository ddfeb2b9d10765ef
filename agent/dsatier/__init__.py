# SPDX-License-Identifier: Apache-2.0
"""dsatier: drives a host with tiers of memory to a declared profile, safely."""

__version__ = "0.1.0"
