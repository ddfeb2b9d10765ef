# SPDX-License-Identifier: Apache-2.0
"""Every test here is judged by the logs of its guests' kernels as well."""

from tests.vm.conftest import kernel_logs, pytest_runtest_makereport

__all__ = ["kernel_logs", "pytest_runtest_makereport"]
