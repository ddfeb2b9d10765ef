# SPDX-License-Identifier: Apache-2.0
"""Exit codes, which are frozen, and how an outcome becomes one."""

OK, FAILED, PENDING, NOT_RUNNING, NOT_COMPLIANT, NO_PROFILE = 0, 1, 2, 3, 4, 5
LOCKED, USAGE, BAD_PROFILE, CONFIGURATION, INTERRUPTED = 11, 64, 65, 78, 128 + 2

RESULTS = {
    "unchanged": OK,
    "changed": OK,
    "pending": NOT_COMPLIANT,
    "refused": FAILED,
    "reverted": FAILED,
    "degraded": NOT_COMPLIANT,
    "quarantined": NOT_COMPLIANT,
    "drifted": NOT_COMPLIANT,
    "rollback-failed": FAILED,
    "reboot-required": FAILED,
}
"""Exit code by ``apply.outcome.Result``."""
