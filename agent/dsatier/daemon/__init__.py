# SPDX-License-Identifier: Apache-2.0
"""The daemon: its loop, what wakes it, and what it says."""
