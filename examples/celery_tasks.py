"""Celery: a task runs with the session and the customer of the program that sent it.

    celery --workdir examples -A celery_tasks worker       in one shell
    python examples/celery_tasks.py                        in another

The broker is a folder (QUEUE, by default in the current one), so that none needs to be installed.
"""

import os
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.signals import before_task_publish

from athina_trace import athina_session, athina_trace, extract, inject

queue = Path(os.environ.get("QUEUE", "queue"))
folders = {name: str(queue / name) for name in ("messages", "control")}
for folder in folders.values():
    Path(folder).mkdir(parents=True, exist_ok=True)


class AthinaTask(Task):  # type: ignore[misc]
    """A task that runs in the scope that came with its message."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run."""
        with extract(self.request.headers or {}):
            return super().__call__(*args, **kwargs)


@before_task_publish.connect  # type: ignore[untyped-decorator]
def take_along(headers: dict[str, Any], **_: Any) -> None:
    """Write the sender's scope into the message's headers."""
    inject(headers)


app = Celery("parcels", broker="filesystem://", task_cls=AthinaTask)
app.conf.update(
    broker_transport_options={
        "data_folder_in": folders["messages"],
        "data_folder_out": folders["messages"],
        "control_folder": folders["control"],
        "polling_interval": 0.1,
    },
    task_ignore_result=True,
)


# `app.task` outside, `athina_trace` inside, since the worker looks up what `app.task` returns.
@app.task(name="parcels.answer")  # type: ignore[untyped-decorator]
@athina_trace
def answer(question: str) -> str:
    """Stand in for a model."""
    return f"Your parcel reaches you tomorrow. (You asked: {question})"


if __name__ == "__main__":
    for number in range(3):
        with athina_session(f"thread-{number}", customer_id=f"customer-{number}"):
            answer.delay(f"Question {number}?")
    print("3 tasks sent")
