# SPDX-License-Identifier: Apache-2.0
"""Makes the man pages, the completion and the generated parts of the documentation."""
