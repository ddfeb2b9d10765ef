# SPDX-License-Identifier: Apache-2.0
"""How often the daemon looks, and when it tries again what failed. Pure.

A poll reads a few files that change without an event; a look reads everything. Looks are frequent
after a change, then less and less often.
"""

from __future__ import annotations

GLANCE = 1.0
"""Seconds between two polls of what may change without an event, while a profile is in force."""
GLANCE_ALL = 10.0
"""Seconds between two polls of everything: events may be lost."""
SOONEST, LATEST = 1.0, 60.0
"""Seconds between two looks, after something happened and when all has been calm; the latter
where no profile in force says otherwise."""
WRITTEN = 0.01
"""Seconds that somebody who writes to a kernel file is given to finish."""
FLOCK = 0.2
"""Seconds that an event of the kernel waits for others: they come in flocks."""
AHEAD = 0.02
"""Seconds that somebody who changes the files of the profile is given to finish."""
READING = 30.0
"""Seconds that reading the profile may take."""
RELOADING = 900.0
"""Seconds that a reload may take where nobody says."""
TRIES = 5
FIRST_RETRY = 30.0


def look_after(calm: int, latest: float = LATEST) -> float:
    """Return the seconds to the next look after ``calm`` looks at which nothing was to do.

    ``latest`` is what the profile in force says of it, if one is.

    >>> [look_after(calm) for calm in (0, 1, 2, 3, 4, 5, 6, 50)]
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    >>> [look_after(calm, 300.0) for calm in (0, 5, 50)]
    [1.0, 32.0, 300.0]
    """
    return min(latest, SOONEST * 2.0 ** min(calm, 20))


def retry_after(failures: int) -> float | None:
    """Return the seconds until a change that failed and was undone is tried again.

    None: no more by itself, for each try disturbs the host. A reload begins anew.

    >>> [retry_after(failures) for failures in (1, 2, 3, 4, 5)]
    [30.0, 120.0, 480.0, 1920.0, None]
    """
    return None if failures >= TRIES else FIRST_RETRY * 4.0 ** (failures - 1)


ORDERING = 900.0
"""Seconds that rollback and release may take."""
POLL = 0.2
