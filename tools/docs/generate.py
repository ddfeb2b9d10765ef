# SPDX-License-Identifier: Apache-2.0
"""Writes the generated parts of the documentation: ``python -m tools.docs.generate``.

Man pages, completion and the picture of the lab's tour are generated as a whole. In README.md and
docs/*.md what stands between ``<!-- generated: NAME -->`` and ``<!-- end -->`` is.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from dsatier.apply.history import EVENTS
from dsatier.apply.lifecycle import IN_MOTION, MEANING, STATES, TABLE, TRANSITIONS
from dsatier.apply.status_document import MOVING, REMEDIES
from dsatier.base.exits import RESULTS
from dsatier.cli.explain import fields as field_names
from dsatier.cli.options import COMMANDS
from dsatier.facts.effect import REASONS
from dsatier.facts.knobs import KNOBS, Knob
from dsatier.facts.model import Facts
from dsatier.facts.observe.kernel import EVL_GUARD
from dsatier.plan.evidence import Evidence
from dsatier.plan.ladder import DESCENTS, LADDER, Act, Put
from dsatier.plan.model import Plan
from dsatier.profile.described import described
from dsatier.profile.model import Profile
from lab.picture import picture
from lab.tour import RUNGS, recorded, transcript
from tools.docs import completion, manual
from tools.docs.fields import sections

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "agent" / "dsatier"
SCHEMAS: dict[str, type] = {"profile": Profile, "facts": Facts, "plan": Plan}
"""What people and other programs write or read as files, for their editors and checks."""
PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
Row = tuple[str, ...]


def table(heads: Row, rows: Iterable[Row]) -> str:
    """Return a Markdown table."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def code(text: str) -> str:
    """Return text as it is typed, nothing where there is none."""
    return f"`{text}`" if text else ""


# -- the layers --------------------------------------------------------------------


def layers() -> list[str]:
    """Return the folders of the agent, from the highest layer, as pyproject.toml has them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = contracts["tool"]["importlinter"]["contracts"]
    rows = next(one["layers"] for one in found if one["id"] == "layers")
    names = [name.strip() for row in rows for name in row.split("|")]
    return [name for name in names if (PACKAGE / name).is_dir()]


def first_line(path: Path) -> str:
    """Return the first sentence of a module's docstring."""
    found = re.search(r'"""(.+?)(?:"""|\n)', path.read_text(encoding="utf-8"))
    return found[1].replace("``", "`") if found else ""


def modules() -> str:
    """Return the table of modules, folder by folder."""
    parts = []
    for name in layers():
        folder = PACKAGE / name
        paths = sorted(path for path in folder.rglob("*.py") if path.stem != "__init__")
        rows = [(code(path.relative_to(folder).as_posix()), first_line(path)) for path in paths]
        title = f"**{name}/**: {first_line(folder / '__init__.py')}"
        parts.append(f"{title}\n\n{table(('module', 'what it is'), rows)}")
    return "\n\n".join(parts)


# -- ladder and lifecycle ------------------------------------------------------------


def act(one: Act) -> str:
    """Return what is done on a rung, in words."""
    if not isinstance(one, Put):
        return one
    return one.knob if one.value is None else f"{one.knob} = {one.value}"


def ladder() -> str:
    """Return the ladder as a diagram."""
    lines = ["```mermaid", "flowchart BT"]
    lines += [f'  {rung.name}["<b>{rung.name}</b><br/>{rung.holds}"]' for rung in LADDER]
    for lower, upper in pairwise(LADDER):
        up = "<br/>".join(map(act, upper.up))
        lines.append(f'  {lower.name} -->|"{up}"| {upper.name}')
    top = LADDER[-1].name
    for rung in dict.fromkeys(rung for _, rung, _ in DESCENTS):
        changes = "<br/>".join(change for change, to, _ in DESCENTS if to == rung)
        lines.append(f'  {top} -.->|"{changes}"| {rung}')
    return "\n".join([*lines, "```"])


def rungs() -> str:
    """Return the ladder as a table, lowest rung first."""
    return table(
        ("rung", "what holds on it", "on the way up", "on the way down"),
        (
            (f"**{r.name}**", r.holds, ", ".join(map(act, r.up)), ", ".join(map(act, r.down)))
            for r in LADDER
        ),
    )


def descents() -> str:
    """Return which changes need a descent."""
    return table(
        ("change", "comes down to", "because"),
        ((change, f"**{rung}**", why) for change, rung, why in DESCENTS),
    )


def lifecycle() -> str:
    """Return the lifecycle as a diagram. Loops and ``stuck`` are left to the table."""
    lines = ["```mermaid", "stateDiagram-v2", "  direction LR", f"  [*] --> {STATES[0]}"]
    lines += [f'  state "{state}" as {name}' for state in STATES if (name := _name(state)) != state]
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), then in TRANSITIONS.items():
        if then not in (None, state) and event != "stuck":
            arrows.setdefault((state, str(then)), []).append(event)
    lines += [f"  {_name(a)} --> {_name(b)}: {', '.join(ev)}" for (a, b), ev in arrows.items()]
    moving = ",".join(_name(state) for state in STATES if state in IN_MOTION)
    lines += ["  classDef motion stroke-dasharray: 4 4", f"  class {moving} motion", "```"]
    return "\n".join(lines)


def _name(state: str) -> str:
    return state.replace("-", "_")


def transitions() -> str:
    """Return the lifecycle's table as it stands in the source."""
    return f"```text\n{TABLE.strip()}\n```"


def states() -> str:
    """Return every state, what it means and what to do."""
    return table(
        ("state", "what it means", "what to do"),
        ((code(s), MEANING[s], MOVING if s in IN_MOTION else REMEDIES[s]) for s in STATES),
    )


def events() -> str:
    """Return what can stand in a history."""
    return table(("event", "what happened"), ((code(name), text) for name, text in EVENTS.items()))


def tiering() -> str:
    """Return what can be told of tiering."""
    verdicts = {"NoPressure": "armed", "Moved": "working", "NotCounted": "unknown"}
    rows = ((reason, *text.partition(": ")[::2]) for reason, text in REASONS.items())
    return table(
        ("verdict", "reason", "what it means", "what to do"),
        (
            (code(verdicts.get(reason, "not working")), code(reason), what, do or "nothing")
            for reason, what, do in rows
        ),
    )


def results() -> str:
    """Return how a command can end, with its exit code."""
    return table(
        ("outcome", "exit code"), ((code(name), str(number)) for name, number in RESULTS.items())
    )


# -- the rest ------------------------------------------------------------------------


def evidence() -> str:
    """Return the kinds of evidence."""
    kinds = Evidence.__origin__.__args__  # type: ignore[attr-defined]
    return table(
        ("evidence", "what it says"),
        ((code(kind.__name__), (kind.__doc__ or "").splitlines()[0]) for kind in kinds),
    )


def knobs() -> str:
    """Return the kernel's knobs."""
    return table(
        ("knob", "file", "dsatier writes", "at boot", "what it does"),
        (
            (code(k.name), code(k.path), _span(k), str(k.named(k.default)), k.text)
            for k in KNOBS.values()
        ),
    )


def _span(knob: Knob) -> str:
    if knob.words:
        return ", ".join(knob.words)
    if knob.flags:
        return "sum of " + ", ".join(f"{bit} {name}" for name, bit in knob.flags.items())
    return str(knob.low) if knob.low == knob.high else f"{knob.low} to {knob.high}"


def event_log() -> str:
    """Return what is known of kernels and devices without event log."""
    return table(
        ("kernel release", "can disable a device without event log", "why"),
        ((code(pattern), "yes" if safe else "**no**", why) for pattern, safe, why in EVL_GUARD),
    )


def commands() -> str:
    """Return the commands."""
    return table(("command", "what it does"), ((code(c.name), c.summary) for c in COMMANDS))


def schema() -> dict[str, Any]:
    """Return the profile's JSON Schema."""
    return described(Profile)


def fields() -> str:
    """Return every field of the profile, section by section."""
    parts = []
    for section in sections(schema()):
        rows = (
            (
                code(f.path),
                f.takes,
                f.default,
                f.kernel and code(f.kernel) + (f", {f.kernel_default}" if f.kernel_default else ""),
                f.text.replace("``", "`"),
            )
            for f in section.fields
        )
        heads = ("field", "takes", "if not named", "in the kernel, at boot", "what it is")
        parts.append(f"### {section.title}\n\n{section.text}\n\n{table(heads, rows)}")
    return "\n\n".join(parts)


def comment(path: Path) -> str:
    """Return what a YAML file says of itself at its top."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if "SPDX" not in line:
            found.append(line.lstrip("# "))
    return " ".join(found)


def _stem(path: Path) -> str:
    return path.stem


def shipped(folder: Path, head: str) -> str:
    """Return the YAML files of a folder with what they say of themselves."""
    rows = ((code(path.stem), comment(path)) for path in sorted(folder.glob("*.yaml"), key=_stem))
    return table((head, "what it is"), rows)


def hosts() -> str:
    """Return the shipped simulated hosts."""
    return shipped(PACKAGE / "hosts", "--host sim:")


def profiles() -> str:
    """Return the shipped profiles."""
    return shipped(ROOT / "profiles", "profile")


# -- the tour ------------------------------------------------------------------------

SIM = "--host sim:dsa8 --sim-state tour.json"
TOUR: tuple[tuple[str, str, int, str], ...] = (
    # text, command, how many of the first lines are shown, and which of the others
    (
        "A profile is checked without a host. An error names file, line and column:",
        "printf 'version: 1\\nengine: {kind: dsa, limit_chan: 4}\\n' | dsatier check -",
        9,
        "",
    ),
    (
        "The plan for a host with eight DSA devices. A step has a reason, a proof and an inverse:",
        "dsatier plan -p profiles/dsa.yaml $SIM",
        8,
        "really initialised$|use_dsa_copy_pages = 1$",
    ),
    (
        "Apply it. Each step is proven before the next begins:",
        "dsatier apply -p profiles/dsa.yaml $SIM",
        2,
        "dsa[07] |initialised|engine |^changed",
    ),
    ("The state of the host:", "dsatier status $SIM", 6, "^  Converged"),
    (
        "Where a value comes from, and what it takes to change it:",
        "dsatier explain engine.limit_chans -p profiles/dsa.yaml $SIM",
        9,
        "",
    ),
    (
        "Change it in a second file. The host goes down the ladder as far as needed, and up:",
        "printf 'version: 1\\nengine: {kind: dsa, limit_chans: 4}\\n' > four.yaml\n"
        "dsatier apply -p profiles/dsa.yaml -p four.yaml $SIM",
        9,
        "",
    ),
    (
        "What a host lacks for a profile. Nothing is written:",
        "dsatier doctor -p profiles/dsa.yaml --host sim:dsa2",
        9,
        "",
    ),
    (
        "Back to the state before dsatier:",
        "dsatier rollback $SIM",
        4,
        "dsa7 |numa_balancing|^changed",
    ),
)


def tour() -> str:
    """Run the tour's commands and return what they print."""
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "profiles").symlink_to(ROOT / "profiles")
        for text, command, first, others in TOUR:
            shown = folded(run(place, command), first, others)
            typed = "\n".join(f"$ {line}" for line in command.splitlines())
            parts.append("\n".join([text, "", "```console", typed, *shown, "```"]))
    return "\n\n".join(parts)


def folded(lines: list[str], first: int, others: str) -> list[str]:
    """Return the first lines and those that a pattern finds, with ``…`` for each gap."""
    kept = [n < first or bool(others and re.search(others, line)) for n, line in enumerate(lines)]
    return [
        line if keep else "…"
        for line, keep, before in zip(lines, kept, [True, *kept], strict=False)
        if keep or before
    ]


def run(place: Path, command: str) -> list[str]:
    """Run a command of the tour in ``place`` and return the lines that it prints."""
    script = f'dsatier() {{ "{sys.executable}" -m dsatier "$@"; }}\nSIM="{SIM}"\n{command}'
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "PYTHONPATH": str(ROOT / "agent"),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    ran = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ran.stdout.splitlines()


def timeless(text: str) -> str:
    """Return text without what depends on when it was made."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \([^)]*\)", "TIME", text)
    return re.sub(r"(✓|✗) \d+\.\d s", r"\1 TIME", text)


# -- pages ---------------------------------------------------------------------------

PARTS: dict[str, Callable[[], str]] = {
    "modules": modules,
    "ladder": ladder,
    "rungs": rungs,
    "descents": descents,
    "lifecycle": lifecycle,
    "transitions": transitions,
    "states": states,
    "events": events,
    "tiering": tiering,
    "results": results,
    "evidence": evidence,
    "knobs": knobs,
    "event-log": event_log,
    "commands": commands,
    "fields": fields,
    "hosts": hosts,
    "profiles": profiles,
    "tour": tour,
    "lab": transcript,
}
"""The generated parts by name."""


def pages() -> list[Path]:
    """Return the pages of the documentation."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str, names: Iterable[str] | None = None) -> str:
    """Return a page with its generated parts made anew: all, or those of ``names``."""
    wanted = PARTS if names is None else tuple(names)

    def fresh(found: re.Match[str]) -> str:
        made = f"{PARTS[found[2]]()}\n" if found[2] in wanted else None
        return found[0] if made is None else f"{found[1]}{made}{found[3]}"

    return PART.sub(fresh, text)


def whole() -> dict[str, str]:
    """Return the files that are generated as a whole, by path from the repository's root."""
    names = sorted(path.stem for path in (PACKAGE / "hosts").glob("*.yaml"))
    return {
        **{f"man/{name}": text for name, text in manual.pages(schema()).items()},
        "completion/dsatier.bash": completion.bash(field_names(), names),
        "completion/_dsatier": completion.zsh(field_names(), names),
        "docs/lab.svg": picture(recorded(), RUNGS),
        **{
            f"schemas/{name}.schema.json": json.dumps(described(kind), indent=2) + "\n"
            for name, kind in SCHEMAS.items()
        },
    }


def main() -> int:
    """Write everything that is generated."""
    for name, text in whole().items():
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_text(text, encoding="utf-8")
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if timeless(before) != timeless(after):
            page.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
