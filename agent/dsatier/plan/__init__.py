# SPDX-License-Identifier: Apache-2.0
"""Decides: from facts and a desired state to steps, refusals and proofs. Pure."""
