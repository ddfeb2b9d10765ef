# SPDX-License-Identifier: Apache-2.0
"""dsatier: drives a two-tier host with an Intel DSA to a declared profile, safely."""

__version__ = "0.1.0"
