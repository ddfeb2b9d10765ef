# SPDX-License-Identifier: Apache-2.0
"""The port to a host, and a machine's files behind it."""
