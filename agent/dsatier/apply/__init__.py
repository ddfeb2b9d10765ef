# SPDX-License-Identifier: Apache-2.0
"""Brings a host where it is wanted: the gate, the driver, the journal, the lifecycle."""
