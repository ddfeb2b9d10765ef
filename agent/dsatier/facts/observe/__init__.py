# SPDX-License-Identifier: Apache-2.0
"""From a host's files to facts: one module for each source."""
