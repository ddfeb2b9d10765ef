# SPDX-License-Identifier: Apache-2.0
"""What every back end of the port does, whichever it is."""

from __future__ import annotations

import errno

import pytest

from dsatier.facts.observe.observer import Observer, observe
from dsatier.host.port import Hung, Locked, Missing, Rejected
from dsatier.sim import spec
from dsatier.sim.faults import HungWrite, RejectedWrite
from dsatier.sim.host import SimHost
from tests.contract.conftest import Make

LIMIT = "/proc/sys/vm/limit_chans"
STATE = "/proc/sys/vm/dsa_state"


def dsa8() -> SimHost:
    return SimHost.host_for("dsa8")


def test_reads_a_file(make: Make) -> None:
    assert make(dsa8()).read(LIMIT) == "8\n"


def test_reads_through_links(make: Make) -> None:
    host = make(dsa8())
    assert host.read("/sys/bus/dsa/devices/dsa3/state") == "disabled\n"
    assert host.read("/sys/bus/dsa/devices/wq3.1/mode") == "shared\n"


@pytest.mark.parametrize("path", ["/proc/nothing", "/proc/sys/vm/limit_chans/x", "/nowhere/x"])
def test_reading_what_is_not_there_is_missing(make: Make, path: str) -> None:
    with pytest.raises(Missing) as caught:
        make(dsa8()).read(path)
    assert path == caught.value.path


def test_lists_names_in_order(make: Make) -> None:
    host = make(dsa8())
    assert ("bind", "unbind") == host.entries("/sys/bus/dsa/drivers/idxd")
    names = host.entries("/sys/bus/dsa/devices")
    assert tuple(sorted(names)) == names
    assert 8 == sum(name.startswith("dsa") for name in names)


def test_lists_through_links(make: Make) -> None:
    assert "wq0.7" in make(dsa8()).entries("/sys/bus/dsa/devices/dsa0")


@pytest.mark.parametrize("path", ["/nowhere", "/proc/nothing/at/all"])
def test_a_folder_that_is_not_there_is_empty(make: Make, path: str) -> None:
    assert () == make(dsa8()).entries(path)


def test_links_come_as_they_are_written(make: Make) -> None:
    host = make(dsa8())
    target = "../../../devices/pci0000:6a/0000:6a:01.0/dsa0"
    assert target == host.link("/sys/bus/dsa/devices/dsa0")


@pytest.mark.parametrize("path", [LIMIT, "/proc/sys/vm", "/nowhere"])
def test_what_is_no_link_has_no_target(make: Make, path: str) -> None:
    assert make(dsa8()).link(path) is None


def test_a_write_is_read_back(make: Make) -> None:
    host = make(dsa8())
    host.write(LIMIT, "4\n", 5.0)
    assert "4\n" == host.read(LIMIT)


def test_a_shorter_write_leaves_nothing_of_a_longer_one(make: Make) -> None:
    host = make(dsa8())
    host.write("/proc/sys/vm/dsa_copy_threshold", "123456\n", 5.0)
    host.write("/proc/sys/vm/dsa_copy_threshold", "7\n", 5.0)
    assert "7\n" == host.read("/proc/sys/vm/dsa_copy_threshold")


def test_writing_what_is_not_there_is_missing_and_makes_nothing(make: Make) -> None:
    host = make(dsa8())
    with pytest.raises(Missing):
        host.write("/proc/sys/vm/limit_chanz", "1\n", 5.0)
    assert "limit_chanz" not in host.entries("/proc/sys/vm")


@pytest.mark.parametrize(
    ("path", "text", "code"),
    [
        (LIMIT, "9\n", errno.EINVAL),
        (STATE, "1\n", errno.ENODEV),
        ("/proc/sys/vm/use_dsa_copy_pages", "1\n", errno.EINVAL),
    ],
)
def test_a_refused_write_tells_errno_and_changes_nothing(
    make: Make, path: str, text: str, code: int
) -> None:
    host = make(dsa8())
    before = host.read(path)
    with pytest.raises(Rejected) as caught:
        host.write(path, text, 5.0)
    assert code == caught.value.errno
    assert before == host.read(path)


def test_an_injected_refusal_is_told(make: Make) -> None:
    sim = dsa8()
    sim.inject(RejectedWrite("rejected-write", path=LIMIT, errno="EIO"))
    with pytest.raises(Rejected) as caught:
        make(sim).write(LIMIT, "4\n", 5.0)
    assert errno.EIO == caught.value.errno


def test_a_hung_write_is_told(make: Make) -> None:
    sim = dsa8()
    sim.inject(HungWrite("hung-write", path=LIMIT))
    host = make(sim)
    with pytest.raises(Hung) as caught:
        host.write(LIMIT, "4\n", 0.1)
    assert LIMIT == caught.value.path


def test_the_log_since_a_mark_is_what_came_after_it(make: Make) -> None:
    host = make(dsa8())
    mark = host.log_mark()
    assert () == host.log_since(mark).lines
    host.write("/sys/devices/system/cpu/cpu23/online", "0\n", 5.0)
    tail = host.log_since(mark)
    assert ("smpboot: CPU 23 is now offline",) == tail.lines
    assert tail.complete
    assert () == host.log_since(host.log_mark()).lines


def test_a_mark_does_not_move_by_being_taken(make: Make) -> None:
    host = make(dsa8())
    assert host.log_mark() == host.log_mark()


def test_a_log_that_has_lost_lines_says_so(make: Make) -> None:
    sim = SimHost.of(spec.parse(spec.shipped_text("dsa8") + "\nlog_lines: 4\n"))
    host = make(sim)
    mark = host.log_mark()
    for cpu in range(16, 24):
        host.write(f"/sys/devices/system/cpu/cpu{cpu}/online", "0\n", 5.0)
    tail = host.log_since(mark)
    assert not tail.complete
    assert "smpboot: CPU 23 is now offline" == tail.lines[-1]


def test_kept_files_are_read_back_and_replaced(make: Make) -> None:
    host = make(dsa8())
    host.keep("/var/lib/dsatier/journal", "one\n")
    host.keep("/var/lib/dsatier/journal", "2\n")
    assert "2\n" == host.read("/var/lib/dsatier/journal")
    assert ("journal",) == host.entries("/var/lib/dsatier")


def test_the_newest_note_is_read_back_without_blanks_at_its_end(make: Make) -> None:
    host = make(dsa8())
    assert host.noted("/var/lib/dsatier/step") is None
    host.note("/var/lib/dsatier/step", "one\n")
    host.note("/var/lib/dsatier/step", "2 ")
    assert "2" == host.noted("/var/lib/dsatier/step")
    assert ("step",) == host.entries("/var/lib/dsatier")
    with pytest.raises(ValueError):
        host.note("/var/lib/dsatier/step", "x" * 5000)
    assert "2" == host.noted("/var/lib/dsatier/step")


def test_dropped_files_are_gone_and_may_be_dropped_again(make: Make) -> None:
    host = make(dsa8())
    host.keep("/run/dsatier/x", "1\n")
    host.drop("/run/dsatier/x")
    host.drop("/run/dsatier/x")
    host.drop("/run/dsatier/never")
    with pytest.raises(Missing):
        host.read("/run/dsatier/x")


def test_the_lock_is_held_once_and_names_its_holder(make: Make) -> None:
    host = make(dsa8())
    with (
        host.lock("/run/dsatier/lock", "dsatier apply"),
        pytest.raises(Locked, match="dsatier apply"),
        host.lock("/run/dsatier/lock", "dsatier detach"),
    ):
        pass
    with host.lock("/run/dsatier/lock", "dsatier again"):
        pass


def test_the_lock_is_let_go_when_its_holder_fails(make: Make) -> None:
    host = make(dsa8())
    with pytest.raises(KeyError), host.lock("/run/dsatier/lock", "one"):
        raise KeyError
    with host.lock("/run/dsatier/lock", "two"):
        pass


def test_a_command_that_is_not_installed_is_missing(make: Make) -> None:
    with pytest.raises(Missing):
        make(SimHost.host_for("no-dsa")).run(("accel-config", "--version"), 5.0)


def test_a_command_changes_what_files_say(make: Make) -> None:
    host = make(SimHost.host_for("swap-on"))
    assert 0 == host.run(("swapoff", "/swapfile"), 5.0).code
    assert "/swapfile" not in host.read("/proc/swaps")


def test_the_name_of_the_host(make: Make) -> None:
    sim = dsa8()
    assert sim.hostname() == make(sim).hostname()


def test_clocks_do_not_go_back(make: Make) -> None:
    host = make(dsa8())
    before = host.monotonic()
    host.sleep(0.0)
    assert before <= host.monotonic()


@pytest.mark.parametrize("name", spec.shipped())
def test_files_give_the_same_facts_as_the_host_they_stand_for(make: Make, name: str) -> None:
    sim = SimHost.host_for(name)
    expected = observe(sim)
    assert expected == observe(make(sim))


def test_facts_follow_the_host(make: Make) -> None:
    sim = dsa8()
    host = make(sim)
    observer = Observer(host)
    before = observer.look()
    host.write("/sys/devices/system/cpu/cpu20/online", "0\n", 5.0)
    host.write("/sys/bus/dsa/devices/dsa0/engine0.2/group_id", "1\n", 5.0)
    host.write("/sys/bus/dsa/devices/wq0.1/size", "32\n", 5.0)
    host.write(LIMIT, "2\n", 5.0)
    after = observer.look()
    assert (20,) == after.offline_cpus
    assert (-1, -1, 1, -1) == after.devices[0].engines
    assert 32 == after.devices[0].queues[1].size
    assert "2" == after.knobs["limit_chans"]
    assert before.devices[1:] == after.devices[1:]
    assert observe(sim) == after
