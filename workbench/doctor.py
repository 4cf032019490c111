"""``workbench doctor``: whether this machine can run sessions, and what to do where it cannot.

Each check looks at one thing and says what it found; one that cannot look says so. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence

import msgspec

from workbench.doctor_machine import check_disk, check_home, check_logout, check_memory, check_runtime
from workbench.doctor_software import (
    check_locale,
    check_packages,
    check_python,
    check_sqlite,
    check_terminal,
    check_torch,
)
from workbench.findings import Finding
from workbench.output import emit, table

CHECKS: dict[str, Callable[[], Finding]] = {
    "home": check_home,
    "disk": check_disk,
    "sqlite": check_sqlite,
    "runtime folder": check_runtime,
    "logout": check_logout,
    "memory": check_memory,
    "python": check_python,
    "packages": check_packages,
    "torch": check_torch,
    "locale": check_locale,
    "terminal": check_terminal,
}


def doctor(arguments: argparse.Namespace) -> int:
    """``workbench doctor``: every check in one table.

    :returns: 1 if something is in the way of a session, else 0.
    """
    findings = examine()
    if arguments.json:
        for finding in findings:
            emit(json.dumps(msgspec.to_builtins(finding)))
    else:
        emit(shown(findings))
    return int(any(finding.result == "fail" for finding in findings))


def examine() -> list[Finding]:
    """What every check found; a check that breaks is a finding too."""
    findings = []
    for name, check in CHECKS.items():
        try:
            finding = check()
        except Exception as error:  # noqa: BLE001 - whatever a strange machine does to one check, the others go on
            what = f"this check could not be made ({type(error).__name__}: {' '.join(str(error).split())})"
            finding = Finding("warn", what, "`workbench run --headless --steps 1` shows whether it matters")
        findings.append(msgspec.structs.replace(finding, check=name))
    return findings


def shown(findings: Sequence[Finding]) -> str:
    """The findings as a table, each remedy under what it is for."""
    rows = [["check", "result", "what"]]
    for finding in findings:
        rows.append([finding.check, finding.result, finding.what])
        if finding.remedy:
            rows.append(["", "", f"-> {finding.remedy}"])
    return table(rows)
