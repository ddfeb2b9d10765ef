# SPDX-License-Identifier: Apache-2.0
"""Files and orders that somebody spoilt: dsatier ends soon, in words, by the rule of exit codes."""
