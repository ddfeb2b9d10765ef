# SPDX-License-Identifier: Apache-2.0
"""Words for people: every message about facts, findings, plans and progress is made here."""

from __future__ import annotations

from dsatier.apply.execute import Progress
from dsatier.apply.outcome import Outcome
from dsatier.base.text import ranges
from dsatier.facts.model import DsaDevice, Facts, MemoryDevice
from dsatier.facts.readings import held, usable
from dsatier.plan.model import Finding, Plan, Step

GIB = 1 << 30


def plan(one: Plan) -> str:
    """Return a plan as a person reads it."""
    lines = [f"{one.hostname}, kernel {one.release}: {one.verdict}"]
    lines += [f"  {line}" for finding in one.findings for line in finding_lines(finding)]
    if one.verdict == "ready" and not one.steps:
        lines.append("  nothing to do: the host is as desired")
    if one.descends_to is not None:
        lines.append(f"  the host comes down to rung '{one.descends_to}' and climbs again")
    rung = None
    for step in one.steps:
        if (step.direction, step.rung) != rung:
            rung = (step.direction, step.rung)
            lines.append(f"\n{'v' if step.direction == 'down' else '^'} {step.rung}")
        lines += step_lines(step)
    if one.untouched:
        lines.append(f"\nnot named by the profile, so not touched: {', '.join(one.untouched)}")
    return "\n".join(lines)


def step_lines(step: Step) -> list[str]:
    """Return a step: what, why, before and after, evidence and inverse."""
    inverse = ", ".join(map(str, step.inverse[:4])) + (", …" if len(step.inverse) > 4 else "")
    lines = [
        f"  {step.number:>2}. {step.what}",
        f"      because   {step.reason}",
        f"      changes   {step.before} → {step.after}",
        f"      proof     {'; '.join(map(str, step.evidence))}",
    ]
    if inverse:
        lines.append(f"      inverse   {inverse}")
    return lines


def finding_lines(finding: Finding) -> list[str]:
    """Return a finding: what is wrong, and the remedy."""
    return [
        f"{finding.level}: {finding.where}: expected {finding.expected}, found {finding.found}",
        f"    remedy: {finding.remedy}",
    ]


def progress(one: Progress) -> str:
    """Return a line of progress."""
    arrow = "v" if one.step.direction == "down" else "^"
    head = f"{arrow} {one.step.number:>2}/{one.of} {one.step.rung:<11} {one.step.what}"
    if one.outcome is None:
        return head
    return (
        f"{head}  ✓ {one.waited:.1f} s" if one.outcome == "proven" else f"{head}  ✗ {one.outcome}"
    )


def outcome(one: Outcome) -> str:
    """Return how a verb ended."""
    state = f" ({one.record.state})" if one.record is not None else ""
    return f"{one.result}{state}: {one.message}" if one.message else f"{one.result}{state}"


def _group(device: DsaDevice) -> str:
    if device.group is None:
        return ""
    others = ", ".join(other.pci for other in device.group.others)
    beside = f" with {others}" if others else ""
    return f", iommu group {device.group.id} {device.group.type}{beside}"


def _memory(device: MemoryDevice) -> str:
    """Return a DAX device: what it hangs on, who has it, and how its memory is."""
    line = (
        f"{device.id:<9} {device.kind}, {device.driver or 'no driver'}, node {device.target_node}"
    )
    if device.blocks is None:
        return line
    parts = {
        "movable": device.blocks.movable,
        "in other zones": device.blocks.others,
        "offline": device.blocks.offline,
    }
    told = ", ".join(f"{len(numbers)} {how}" for how, numbers in parts.items() if numbers)
    return f"{line}; memory blocks of {device.blocks.size >> 20} MiB: {told}"


def facts(one: Facts) -> str:
    """Return facts as a person reads them."""
    lines = [
        f"host      {one.hostname}, {one.cpu_model or 'CPU of unknown model'}",
        f"kernel    {one.kernel.release}, family {one.kernel.family}"
        + (f", ABI {one.kernel.abi}" if one.kernel.abi is not None else ""),
        f"iommu     {one.iommu}{', scalable mode' if one.scalable_mode else ''}",
    ]
    for node in one.nodes:
        cpus = f"cpus {ranges(node.cpus)}" if node.cpus else "no CPU online"
        distances = " ".join(map(str, node.distances))
        tier = "" if node.tier is None else f"; memory tier {node.tier}"
        if node.demotion_target is not None:
            to = "nowhere" if node.demotion_target < 0 else f"to node {node.demotion_target}"
            tier += f"; demotes {to}"
        lines.append(
            f"node {node.id:<4} {cpus}; {node.mem_total / GIB:.1f} GiB, "
            f"{node.mem_free / GIB:.1f} GiB free; distances {distances}{tier}"
        )
    if one.offline_cpus:
        lines.append(f"offline   cpus {ranges(one.offline_cpus)}")
    for device in one.devices:
        queues = ", ".join(
            f"{q.id} {q.state} {q.mode} {q.type}" for q in device.queues if q.state == "enabled"
        )
        lines.append(
            f"{device.id:<9} {device.state}, node {device.numa_node}, version {device.version:#x}"
            f"{', event log' if device.event_log else ''}{_group(device)}; "
            f"{queues or 'no queue enabled'}"
        )
    lines += map(_memory, one.memory_devices)
    lines += [f"unbound   {loose.pci}: a DSA that no driver has" for loose in one.unbound]
    if not one.kernel_log:
        lines.append("log       the kernel log cannot be read")
    lines.append(f"channels  {len(held(one))} of {len(usable(one))} usable DSA channels in use")
    lines += [f"swap      {s.path}, {s.used >> 20} of {s.size >> 20} MiB used" for s in one.swaps]
    lines += [f"{name:<22} {value}" for name, value in one.knobs.items()]
    lines += [f"other     {w.tool} sets {', '.join(w.items)} ({w.path})" for w in one.others]
    return "\n".join(lines)
