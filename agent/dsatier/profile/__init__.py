# SPDX-License-Identifier: Apache-2.0
"""From the text of profile files to one checked profile."""
