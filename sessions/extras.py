"""Optional packages: where one is needed and not there, one line says how to get it."""

from __future__ import annotations

from importlib.util import find_spec

from sessions.errors import UsageError

EXTRAS = {"parquet": "pyarrow", "datasets": "datasets", "reasoning-gym": "reasoning_gym"}
"""Extra of this package -> the module that it brings."""


def need(extra: str, what: str) -> None:
    """Refuse what an extra is missing for; nothing is imported.

    :param what: asks for it, such as ``task rows.parquet``.
    :raises UsageError: with the command that installs it.
    """
    if find_spec(EXTRAS[extra]) is None:
        raise UsageError(
            f"{what}: it needs the package {EXTRAS[extra].replace('_', '-')}, which is not installed; "
            f"run `pip install 'rl-workbench[{extra}]'`"
        )
