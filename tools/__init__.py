# SPDX-License-Identifier: Apache-2.0
"""What the project is made with and does not ship."""
