"""A support chat, traced: three questions on one thread, and one Athina log for each answer.

Three ways to run it:

    make demo                                          stand-ins play the parts of OpenAI and Athina: no key is needed
    OPENAI_API_KEY=... make demo                       the same talk with OpenAI, through its Responses API
    ATHINA_API_KEY=... ATHINA_BASE_URL=... make demo   with delivery to Athina itself
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openai import OpenAI
from openai.types.beta.threads import Run

from athina_trace import athina_session, athina_trace, flush, instrument_openai, recent_logs, status
from destination import open_destination
from parcels import INSTRUCTIONS, TRACK_PARCEL, find_document, use_tool
from responses_desk import ResponsesDesk
from show import offer_viewer, show_body, show_conversation, show_delivery
from standin_openai import StandIn

QUESTIONS = (
    "Hello, where is my parcel PX-48213?",
    "What if I do not like it, can I send it back?",
    "Good to know. Can a neighbour take it tomorrow?",
)


class AssistantsDesk:
    """A support desk on the Assistants API, where a conversation is a thread."""

    tools: Any = ({"type": "function", "function": TRACK_PARCEL},)

    def __init__(self, client: OpenAI) -> None:
        self.threads = client.beta.threads
        self.assistant = client.beta.assistants.create(model="gpt-4o-mini", instructions=INSTRUCTIONS, tools=self.tools)
        self.thread_id = self.threads.create().id

    # Each call is one log. Question and document are its parameters, the answer is what it returns; model, prompt,
    # tokens and tool calls are recorded from the client, as `instrument_openai()` arranged.
    @athina_trace(prompt_slug="customer-support/v1")
    def answer(self, question: str, context: str) -> str:
        """Answer one question from a document."""
        self.threads.messages.create(self.thread_id, role="user", content=question)
        run = self.threads.runs.create_and_poll(
            thread_id=self.thread_id, assistant_id=self.assistant.id, additional_instructions=context
        )
        while run.required_action:
            asked = run.required_action.submit_tool_outputs.tool_calls
            outputs = [use_tool(call.function.name, call.function.arguments) for call in asked]
            run = self.threads.runs.submit_tool_outputs_and_poll(
                run_id=run.id,
                thread_id=self.thread_id,
                tool_outputs=[{"tool_call_id": c.id, "output": o} for c, o in zip(asked, outputs, strict=True)],
            )
        return self._answer_of(run)

    def _answer_of(self, run: Run) -> str:
        """Return the assistant's answer in a run; raise an exception, which is logged, if the run failed."""
        if run.status != "completed":
            message = f"the run is {run.status}: {run.last_error}"
            raise RuntimeError(message)
        messages = self.threads.messages.list(self.thread_id, run_id=run.id, order="asc")
        return "\n".join(part.text.value for message in messages for part in message.content if part.type == "text")


@contextmanager
def open_desk() -> Iterator[AssistantsDesk | ResponsesDesk]:
    """Use OpenAI's Responses API if there is a key, otherwise the stand-in's Assistants API."""
    if os.environ.get("OPENAI_API_KEY"):
        with OpenAI() as client:
            yield ResponsesDesk(client)
    else:
        # OpenAI has shut down its Assistants API; Azure and compatible servers still have it.
        warnings.filterwarnings("ignore", "(The Assistants API is )?deprecated", DeprecationWarning)
        with StandIn() as server, OpenAI(base_url=server.base_url, api_key="not needed") as client:
            yield AssistantsDesk(client)


def logs_of(thread_id: str) -> list[dict[str, Any]]:
    """Return the logs of a conversation as Athina gets them, oldest first."""
    return [log for log in recent_logs(limit=100) if log.get("session_id") == thread_id]


def main() -> None:
    """Hold the conversation, then show what was logged."""
    with open_destination() as local_athina:
        instrument_openai()
        with open_desk() as desk:
            # All logs made inside belong to this conversation and this customer.
            with athina_session(
                desk.thread_id,
                customer_id="disney-usa-2314832",
                customer_user_id="michaelmouse@gmail.com",
                environment="demo",
            ):
                for question in QUESTIONS:
                    desk.answer(question, find_document(question))
            logs = logs_of(desk.thread_id)
        show_conversation(logs)
        show_body(logs[0])
        # Logs are delivered in the background; a short script waits for that before it ends.
        show_delivery(flush(timeout=10), status())
        offer_viewer(local_athina, desk.thread_id)


if __name__ == "__main__":
    main()
