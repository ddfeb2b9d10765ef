# SPDX-License-Identifier: Apache-2.0
"""Every test here is judged by the logs of its guests' kernels as well.

The package is a fixture here, and not of each module that wants it: it is built once.
"""

from tests.system.conftest import package
from tests.vm.conftest import kernel_logs, pytest_runtest_makereport

__all__ = ["kernel_logs", "package", "pytest_runtest_makereport"]
