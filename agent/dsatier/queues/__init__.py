# SPDX-License-Identifier: Apache-2.0
"""DSA devices and queues as configured, and accel-config's file of them."""
