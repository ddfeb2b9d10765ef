# SPDX-License-Identifier: Apache-2.0
"""Mutants of the tables that decide, and the checks that catch them. Nothing is patched."""
