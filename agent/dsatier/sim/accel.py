# SPDX-License-Identifier: Apache-2.0
"""accel-config as it behaves: what it writes, in what order, and its exit codes.

A translation of ``accfg/config.c`` and ``accfg/enable.c`` of 3.5.3 and 4.1.6. It does not validate
its file, stops at the first refusal, leaves behind what it wrote before, and skips what is active.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from errno import EINVAL, ENOENT, ENOMEM, ENXIO, EPERM
from typing import TYPE_CHECKING, Any

from dsatier.host.port import HostError, Ran, Rejected
from dsatier.sim import idxd

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel

BUS = "/sys/bus/dsa"
DEVICE_KEYS = {"token_limit", "read_buffer_limit"}
LIMIT_KEYS = {"use_token_limit", "use_read_buffer_limit"}
CLASS_KEYS = {"traffic_class_a", "traffic_class_b"}
GROUP_KEYS = (
    {"tokens_reserved", "read_buffers_reserved", "tokens_allowed", "read_buffers_allowed"}
    | LIMIT_KEYS
    | CLASS_KEYS
)
QUEUE_TEXT = ("type", "name", "driver_name", "mode")
QUEUE_NUMBERS = (
    "size",
    "priority",
    "group_id",
    "block_on_fault",
    "max_batch_size",
    "max_transfer_size",
    "threshold",
    "ats_disable",
)
TERSE = ("max_transfer_size", "mode", "name", "driver_name")
"""Attributes whose failed write is reported without their name."""
OLD_NAMES = {
    "read_buffers_allowed": "tokens_allowed",
    "read_buffers_reserved": "tokens_reserved",
    "use_read_buffer_limit": "use_token_limit",
    "read_buffer_limit": "token_limit",
}
NEW_NAMES = {old: new for new, old in OLD_NAMES.items()}
STATUS = {
    idxd.WQ_NO_GRP: "wq error - group not set",
    idxd.WQ_NO_NAME: "wq error - name not set",
    idxd.WQ_NO_SVM: "wq error - no svm support",
    idxd.WQ_NO_THRESH: "wq error - threshold not set",
    idxd.WQ_NO_SWQ: "wq error - no shared wq support (platform configuration error)",
    idxd.WQ_NONE: "wq error - no wqs configured",
    idxd.DEV_ENABLED: "device error - device already enabled",
}


class _Stop(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its members in their order."""


def run(k: Kernel, argv: tuple[str, ...]) -> Ran:
    """Run accel-config. Raises HostDown."""
    return _Run(k, argv).run()


class _Run:
    def __init__(self, k: Kernel, argv: tuple[str, ...]) -> None:
        self.k = k
        self.argv = argv
        self.out: list[str] = []
        self.err: list[str] = []
        self.newer = not (k.spec.accel_config or "").startswith("3.")
        self.blamed = ""
        # what the tool keeps from one object of its file to the next
        self.parent = ""
        self.here = ""
        self.drivers: dict[str, str] = {}
        self.devices: list[str] = []
        self.queues: list[str] = []
        self.enable = self.forced = False

    def run(self) -> Ran:
        verb, *words = self.argv[1:] or ["help"]
        verb = verb.removeprefix("--").replace("-v", "version") if verb == "-v" else verb
        verb = verb.removeprefix("--")
        if self.k.layout.file(self.k, f"{BUS}/drivers/idxd/bind") is None:
            return Ran(1, "", "idxd kernel module not loaded\n")
        if verb == "version":
            return Ran(0, f"{self.k.spec.accel_config}\n", "")
        verbs = {
            "load-config": self._load,
            "enable-device": self._devices,
            "disable-device": self._devices,
            "enable-wq": self._queues,
            "disable-wq": self._queues,
        }
        if verb not in verbs:
            return Ran(1, "", f"Unknown command: '{verb}'\n")
        try:
            code = verbs[verb](verb, words)
        except _Stop as stop:
            code = stop.code
        if code and code != 134 and self.blamed:
            self._blame()
        return Ran(
            code if code in (0, 134) else 1,
            "".join(f"{line}\n" for line in self.out),
            "".join(f"{line}\n" for line in self.err),
        )

    def _blame(self) -> None:
        found = idxd.find(self.k, self.blamed)
        if found is None:
            return
        status = self.k.state.devices[found[1]].cmd_status
        if status:
            place = f"dsa{found[1]}" + ("" if found[0] == "dsa" else f"/{self.blamed}")
            said = STATUS.get(status, "Unknown error")
            self.out.append(f"Error[{status:#10x}] {place}: {said}")

    # sysfs

    def _write(self, path: str, text: str, blame: str) -> int:
        """Write a file; return 0 or a negative errno."""
        try:
            self.k.write(path, text, self.k.origin, f"{' '.join(self.argv[:2])}: {path} <- {text}")
        except Rejected as rejected:
            self.blamed = blame
            return -rejected.errno
        except HostError as gone:
            if gone.path != path:
                raise
            self.blamed = blame
            return -ENOENT
        return 0

    def _there(self, path: str) -> bool:
        return self.k.layout.file(self.k, path) is not None

    def _read(self, name: str, attribute: str) -> str:
        return self.k.read(f"{BUS}/devices/{name}/{attribute}").rstrip("\n")

    # load-config

    def _load(self, _verb: str, words: list[str]) -> int:
        path = "/etc/accel-config/accel-config.conf"
        while words:
            word = words.pop(0)
            if word in ("-c", "--config-file") and words:
                path = words.pop(0)
            elif word.startswith("--config-file="):
                path = word.partition("=")[2]
            elif word in ("-e", "--enable"):
                self.enable = True
            elif word in ("-f", "--forced"):
                self.forced = True
            elif word not in ("-v", "--verbose"):
                self.err.append(f'unknown parameter "{word}"')
                return 129
        text = self._config(path)
        code = -EINVAL
        if text is None:
            self.err.append(f"config-file: {path} cannot be opened: No such file or directory")
            self.err.append("Reading config file failed: -2")
        else:
            code = self._parse(text)
        if code < 0:
            self.err.append(f"Parse json and set device fail: {code}")
            return code
        return self._activate() if self.enable else 0

    def _config(self, path: str) -> str | None:
        kept = self.k.state.files.get(path)
        if kept is not None:
            return kept
        try:
            return self.k.read(path)
        except HostError:
            return None

    def _parse(self, text: str) -> int:
        try:
            top = json.loads(text, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError):
            return -ENOMEM
        if top is None:
            return -ENOMEM
        if isinstance(top, _Pairs) or not isinstance(top, list):
            self.err.append("json_object_array_length: Assertion `type == json_type_array' failed.")
            raise _Stop(134)
        return self._array(top)

    def _array(self, rows: list[Any]) -> int:
        if not rows:
            return -1
        for row in rows:
            if isinstance(row, _Pairs):
                code = self._object(row)
            elif isinstance(row, list):
                code = self._array(row)
            else:
                code = -1
            if code:
                return -1
        return 0

    def _object(self, row: _Pairs) -> int:
        for key, value in row:
            if value is None:
                continue
            if isinstance(value, _Pairs):
                self._object(value)  # whatever comes of it
            elif isinstance(value, list):
                if self._array(value):
                    return -1
            elif self._value(key, value):
                return -1
        return 0

    def _value(self, key: str, value: Any) -> int:
        if key == "dev":
            return self._choose(_string(value))
        if not self.parent:
            return 0
        kind = re.match(r"[a-z]*", self.here)
        assert kind
        setters = {
            "dsa": ("device", self._set_device),
            "group": ("group", self._set_group),
            "wq": ("wq", self._set_queue),
            "engine": ("engine", self._set_engine),
        }
        if kind[0] not in setters:
            self.err.append("device type not matched")
            return -EINVAL
        label, setter = setters[kind[0]]
        code = setter(key, value)
        if code:
            self.err.append(f"{label} set {key} value failed")
        return code

    def _choose(self, name: str) -> int:
        self.here = ""
        if "dsa" in name or "iax" in name:
            self.parent = ""
            found = idxd.find(self.k, name)
            if found is None or found[0] != "dsa":
                self.err.append("device is not available")
                return -ENOENT
            if self._read(name, "state") == "enabled":
                if not self.forced:
                    self.err.append(f"{name} is active. Skipping...")
                    return 0
                self.err.append(f"{name} is active. Disabling...")
                code = self._disable_device(name, force=True)
                if code:
                    self.err.append("Failed disabling device")
                    return code
            self.devices.append(name)
            self.parent = self.here = name
            return 0
        if not self.parent:
            return 0
        for kind in ("wq", "engine", "group"):
            if kind not in name:
                continue
            place = re.match(r"\s*[+-]?\d+\.\s*[+-]?(\d+)", name[len(kind) :])
            if not place:
                return -EINVAL
            # only the second number counts: the object is looked up in the device before
            here = f"{kind}{self.parent.removeprefix('dsa')}.{int(place[1])}"
            if idxd.find(self.k, here) is None:
                return -ENOENT
            if kind == "wq":
                if self._read(here, "state") == "enabled":
                    self.err.append(f"{name} is active, will skip...")
                    return 0
                self.queues.append(here)
            self.here = here
        return 0

    def _attribute(self, attribute: str, text: str) -> int:
        path = f"{BUS}/devices/{self.here}/{attribute}"
        code = self._write(path, text, self.here)
        if code and not (code == -ENOENT and attribute == "driver_name"):
            what = "" if attribute in TERSE else f"{attribute} attribute "
            self.err.append(
                f"libaccfg: accfg_wq_set_{attribute}: {self.here}: "
                f"{what}write failed: {os.strerror(-code)}"
            )
            return code
        return 0

    def _renamed(self, key: str) -> str:
        """Return the name that this kernel has for a read buffer attribute."""
        name = NEW_NAMES.get(key, key)
        if self._there(f"{BUS}/devices/{self.here}/{name}"):
            return name
        return OLD_NAMES.get(name, name)

    def _set_device(self, key: str, value: Any) -> int:
        keys = DEVICE_KEYS | ({"event_log_size"} if self.newer else set())
        if key not in keys:
            return 0
        return self._attribute(self._renamed(key), str(_int(value)))

    def _set_group(self, key: str, value: Any) -> int:
        if key not in GROUP_KEYS:
            return 0
        number = _int(value)
        if number < 0:
            return -EINVAL
        if key in LIMIT_KEYS:
            limit = "read_buffer_limit" if not self.k.seed else "token_limit"
            if self._read(self.parent, limit) == "0":
                return 0
        if key in CLASS_KEYS and int(self._read(self.parent, "version"), 0) < 0x200:
            return 0
        return self._attribute(self._renamed(key), str(number))

    def _set_engine(self, key: str, value: Any) -> int:
        return 0 if key != "group_id" else self._attribute(key, str(_int(value)))

    def _set_queue(self, key: str, value: Any) -> int:
        if key in QUEUE_TEXT:
            text = _string(value)
            code = self._attribute(key, text)
            if not code and key == "driver_name":
                self.drivers[self.here] = text
            return code
        numbers = QUEUE_NUMBERS + (("prs_disable",) if self.newer else ())
        if key not in numbers:
            return 0
        number = _int(value)
        if key == "threshold" and self._read(self.here, "mode") == "dedicated":
            return 0
        if self.newer and key in ("ats_disable", "prs_disable"):
            there = self._there(f"{BUS}/devices/{self.here}/{key}")
            if number not in (0, 1) or not there:
                return 0
        return self._attribute(key, str(number))

    def _activate(self) -> int:
        # both lists are stacks
        for name in reversed(self.devices):
            self.out.append(f"Enabling device {name}")
            code = self._write(f"{BUS}/drivers/idxd/bind", name, name)
            if code:
                self.err.append("Error enabling device")
                return code
        for name in reversed(self.queues):
            self.out.append(f"Enabling wq {name}")
            code = self._enable_queue(name)
            if code:
                self.err.append("Error enabling wq")
                return code
        return 0

    # single objects

    def _enable_queue(self, name: str) -> int:
        driver = "dmaengine" if self._read(name, "type") == "kernel" else "user"
        if self._there(f"{BUS}/devices/{name}/driver_name"):
            named = self.drivers.get(name) or self._read(name, "driver_name")
            # 3.5.3 takes an empty name for one, 4.1.6 for none
            driver = named if named or not self.newer else driver
            if driver not in ("idxd", "dmaengine", "user"):
                self.err.append(f'Invalid wq driver name "{driver}"')
                return -ENOENT
        code = self._write(f"{BUS}/drivers/{driver}/bind", name, name)
        if code:
            return code
        return 0 if self._read(name, "state") == "enabled" else -ENXIO

    def _disable_queue(self, name: str, *, force: bool) -> int:
        clients = self._read(name, "clients")
        if clients != "0":
            self.err.append(f"libaccfg: accfg_wq_control: wq has clients: {clients}.")
            if not force:
                self.err.append("libaccfg: accfg_wq_control:  wq disable refused.")
                return -EPERM
        driver = idxd.driver_of(self.k, name)
        return self._write(f"{BUS}/drivers/{driver}/unbind", name, name) if driver else -ENOENT

    def _disable_device(self, name: str, *, force: bool) -> int:
        clients = self._read(name, "clients")
        if clients != "0":
            self.err.append(f"libaccfg: accfg_device_control: Device has clients: {clients}.")
            if not force:
                self.err.append("libaccfg: accfg_device_control: Device disable refused.")
                return -EPERM
        if not idxd.driver_of(self.k, name):
            return -ENOENT
        return self._write(f"{BUS}/drivers/idxd/unbind", name, name)

    def _each(self, words: list[str]) -> Iterator[str]:
        self.forced = bool({"-f", "--force"} & set(words))
        yield from (word for word in words if not word.startswith("-"))

    def _devices(self, verb: str, words: list[str]) -> int:
        code, done, enable = -EINVAL, 0, verb == "enable-device"
        names = list(self._each(words))
        for name in names:
            found = idxd.find(self.k, name)
            if found is None or found[0] != "dsa":
                self.err.append(f"{name} device not found")
                continue
            active = self._read(name, "state") == "enabled"
            if active == enable:
                state = "enabled" if enable else "disabled"
                self.err.append(f"{name} is in {state} state already, skipping...")
                code = -16
            elif enable:
                code = self._write(f"{BUS}/drivers/idxd/bind", name, name)
            else:
                code = self._disable_device(name, force=self.forced)
            if code == 0 and (self._read(name, "state") == "enabled") != enable:
                code = ENXIO  # positive: the exit code is 0
            if code == 0:
                done += 1
            else:
                self.err.append(f"failed in {name}")
        said = "enabled" if enable else "disabled"
        self.err.append(f"{said} {done} device(s) out of {len(names)}")
        return 0 if done or code >= 0 else code

    def _queues(self, verb: str, words: list[str]) -> int:
        code, done, enable = -EINVAL, 0, verb == "enable-wq"
        names = list(self._each(words))
        for name in names:
            wq = name.rpartition("/")[2]
            found = idxd.find(self.k, wq)
            if found is None or found[0] != "wq" or not name.startswith(f"dsa{found[1]}/"):
                self.err.append(f"{name} workqueue not found")
                continue
            if (self._read(wq, "state") == "enabled") == enable:
                mode = "enabled or locked" if enable else "disabled"
                self.err.append(f"{name} is in {mode} mode already, skipping...")
                code = -ENXIO
            elif enable:
                code = self._enable_queue(wq)
            else:
                code = self._disable_queue(wq, force=self.forced)
            if code == 0:
                done += 1
            else:
                self.err.append(f"failed in {name}")
        said = "enabled" if enable else "disabled"
        self.err.append(f"{said} {done} wq(s) out of {len(names)}")
        return 0 if done else code


def _string(value: Any) -> str:
    """json_object_get_string: a number's text, a string itself."""
    return value if isinstance(value, str) else json.dumps(value)


def _int(value: Any) -> int:
    """json_object_get_int: a string that starts with a number counts as one, another as 0."""
    if isinstance(value, str):
        found = re.match(r"\s*[+-]?\d+", value)
        return int(found[0]) if found else 0
    return int(value)
