# SPDX-License-Identifier: Apache-2.0
"""A hostile guest, played over qtest: nothing it does may hurt QEMU or its host."""
