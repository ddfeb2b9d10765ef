# SPDX-License-Identifier: Apache-2.0
"""Our kernel, booted: what its knobs do to the pages of those who know nothing of them."""
