# SPDX-License-Identifier: Apache-2.0
"""Documentation: what is generated, and what holds the rest to the sources."""
