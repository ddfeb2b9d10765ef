# SPDX-License-Identifier: Apache-2.0
"""The command line: reads the words, opens a host, prints the outcome."""
