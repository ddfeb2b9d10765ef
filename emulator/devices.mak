# SPDX-License-Identifier: Apache-2.0
# The devices that the emulator is built with, in the words of QEMU's Kconfig files. Nothing is
# built by default, so a device that a test wants needs a line here.

# the machine: two tiers by HMAT are part of it
CONFIG_Q35=y
CONFIG_VTD=y

# root ports, and host bridges with a NUMA node of their own (which QEMU builds with CXL only)
CONFIG_PCIE_PORT=y
CONFIG_PXB=y
CONFIG_CXL=y
CONFIG_CXL_MEM_DEVICE=y

# what a guest needs to be talked to
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BLK=y
CONFIG_VIRTIO_SERIAL=y
CONFIG_VIRTIO_NET=y
CONFIG_VIRTIO_RNG=y
CONFIG_VIRTIO_9P=y
CONFIG_PVPANIC_PCI=y

# a way out for programs without an operating system
CONFIG_ISA_DEBUG=y

# the emulated Data Streaming Accelerator
CONFIG_DSA=y
