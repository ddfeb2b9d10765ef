# SPDX-License-Identifier: Apache-2.0
"""A soak: a daemon that lives under faults and drift, and is judged for what it leaves."""
