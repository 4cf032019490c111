"""Whether a session goes on with the prompts it was started with.

What comes after a checkpoint is computed again from its records, which names prompts by their place in the task: other
rows under the same places would be other steps.
"""

from __future__ import annotations

from engine.tasks.task import Task
from sessions.errors import UsageError
from sessions.store import Store

KEY = "task_fingerprint"
"""In the session's database."""


def check_prompts(store: Store, task: Task) -> None:
    """Keep what the prompts are known by, at the first start; compare, at each later one.

    :raises UsageError: if the rows are others now.
    """
    if not task.fingerprint:
        return
    before = store.meta(KEY)
    if before is None:
        store.set_meta(KEY, task.fingerprint)
    elif before != task.fingerprint:
        raise UsageError(
            f"task {task.name}: its rows are not those that this session was started with; put them back as they were, "
            "or start another session on the new ones"
        )
