# SPDX-License-Identifier: Apache-2.0
"""Every file and folder that dsatier has on a host, each named once."""

STATE = "/var/lib/dsatier"
"""What has to outlive a boot; only root reads it."""
RUN = "/run/dsatier"
"""What is of this boot alone."""
DROP_INS = ("/usr/lib/dsatier.d", "/run/dsatier.d", "/etc/dsatier.d")
"""The folders of profiles, from the lowest precedence to the highest."""

RECORD = f"{STATE}/record.json"
ORIGINALS = f"{STATE}/originals.json"
MOTION = f"{STATE}/motion.json"
STEP = f"{STATE}/step"
"""Notes of the steps of motions: only the newest of the motion that is open means anything."""
ACCEPTED = f"{STATE}/accepted.json"
TALLY = f"{STATE}/tally.json"
HISTORY = f"{STATE}/history"

STATUS = f"{RUN}/status.json"
METRICS = f"{RUN}/dsatier.prom"
LATE = f"{RUN}/late.json"
"""The record as it was on disk, and in a second line the one that the disk would not take."""
LOCK = f"{RUN}/lock"
QUEUE_FILE = f"{RUN}/queues.json"
"""What accel-config is to load next."""
PICTURE = f"{RUN}/simulated.json"
"""Description and state of a simulated host when somebody last asked for them."""
