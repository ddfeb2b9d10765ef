# SPDX-License-Identifier: GPL-2.0-only
"""How fast a kernel copies migrating pages: folio sizes by engines by lengths of lists.

``cases`` says what is measured, ``knobs`` turns engines on and everything back, ``measure`` runs
the program ``moves``, ``report`` makes a table and a picture of what came out.
"""
