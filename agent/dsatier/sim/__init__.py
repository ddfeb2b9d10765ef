# SPDX-License-Identifier: Apache-2.0
"""A two-tier host in memory: the kernel contract of both families, and the harm that misuse does.

``SimHost`` (in ``host``) implements the port ``dsatier.host.port.Host``. ``spec`` describes a host,
``faults`` what goes wrong on it, ``state`` is all that changes, ``sysctl``, ``copying``, ``idxd``
and ``memory`` are how the kernel behaves, ``hazards`` is the judge, ``layout`` the tree of files.
"""
