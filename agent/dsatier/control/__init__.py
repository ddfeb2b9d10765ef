# SPDX-License-Identifier: Apache-2.0
"""The daemon's socket, both ends."""
