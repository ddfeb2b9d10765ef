# SPDX-License-Identifier: Apache-2.0
"""Values without a subject, which every layer may use."""
