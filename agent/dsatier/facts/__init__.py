# SPDX-License-Identifier: Apache-2.0
"""What a host is: the facts, what can be read from them, and how they are observed."""
