# SPDX-License-Identifier: Apache-2.0
"""Guests with a kernel of their own, and what is proven in them.

``machine`` describes one, ``guest`` boots it and talks with it, ``images`` has kernels and roots.
docs/virtual-machines.md shows it in use.
"""
