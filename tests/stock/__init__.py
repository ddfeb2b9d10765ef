# SPDX-License-Identifier: Apache-2.0
"""Tiering by dsatier on kernels that Debian ships: pages move, and what is told of it is so.

Whole hosts with systemd and dsatier's package. Nothing is simulated but the machine.
"""
