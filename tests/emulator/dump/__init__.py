# SPDX-License-Identifier: Apache-2.0
"""A device's registers and answers as JSON, and what two such dumps differ in."""
