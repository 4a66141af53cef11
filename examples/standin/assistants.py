"""Assistants, threads and messages, as the Assistants API keeps them."""

from standin.wire import Answer, Json, Request, Routes, find, missing, new_id, now, page


class Assistants:
    """The shelves that runs work on: assistants and threads by id, messages by thread, oldest first."""

    def __init__(self) -> None:
        self.assistants: dict[str, Json] = {}
        self.threads: dict[str, Json] = {}
        self.messages: dict[str, list[Json]] = {}

    def routes(self) -> Routes:
        """The endpoints of this part."""
        return {
            "POST /assistants": self._create_assistant,
            "GET /assistants": lambda request: Answer(page(self.assistants.values(), request)),
            "GET /assistants/{assistant}": lambda request: Answer(self.assistant(request.ids["assistant"])),
            "DELETE /assistants/{assistant}": self._delete_assistant,
            "POST /threads": lambda request: Answer(self.new_thread(request.body)),
            "GET /threads/{thread}": lambda request: Answer(self.thread(request.ids["thread"])),
            "DELETE /threads/{thread}": self._delete_thread,
            "GET /threads/{thread}/messages": self._list_messages,
            "GET /threads/{thread}/messages/{message}": self._message,
        }

    def assistant(self, key: str) -> Json:
        """The assistant with this id, or 404."""
        return find(self.assistants, key, kind="assistant")

    def thread(self, key: str) -> Json:
        """The thread with this id, or 404."""
        return find(self.threads, key, kind="thread")

    def new_thread(self, body: Json) -> Json:
        """Open a thread, with the messages that the request brings along."""
        thread: Json = {
            "id": new_id("thread_"),
            "object": "thread",
            "created_at": now(),
            "metadata": body.get("metadata") or {},
            "tool_resources": body.get("tool_resources") or {},
        }
        self.threads[thread["id"]] = thread
        self.messages[thread["id"]] = []
        for given in body.get("messages") or []:
            self.add_message(thread["id"], given)
        return thread

    def add_message(self, thread_id: str, given: Json) -> Json:
        """Put a message of the user on a thread."""
        self.thread(thread_id)
        if "content" not in given:
            raise missing(name="content")
        message = new_message(thread_id, given.get("role", "user"), content=_parts(given["content"]))
        message.update(attachments=given.get("attachments") or [], metadata=given.get("metadata") or {})
        self.messages[thread_id].append(message)
        return message

    def _create_assistant(self, request: Request) -> Answer:
        given = {name: value for name, value in request.body.items() if value is not None}
        assistant: Json = {
            "id": new_id("asst_"),
            "object": "assistant",
            "created_at": now(),
            "name": None,
            "description": None,
            "model": "gpt-4o-mini",
            "instructions": None,
            "tools": [],
            "top_p": 1.0,
            "temperature": 1.0,
            "reasoning_effort": None,
            "tool_resources": {},
            "metadata": {},
            "response_format": "auto",
        } | given
        self.assistants[assistant["id"]] = assistant
        return Answer(assistant)

    def _delete_assistant(self, request: Request) -> Answer:
        key = self.assistant(request.ids["assistant"])["id"]
        del self.assistants[key]
        return Answer({"id": key, "object": "assistant.deleted", "deleted": True})

    def _delete_thread(self, request: Request) -> Answer:
        key = self.thread(request.ids["thread"])["id"]
        del self.threads[key], self.messages[key]
        return Answer({"id": key, "object": "thread.deleted", "deleted": True})

    def _list_messages(self, request: Request) -> Answer:
        thread, run = self.thread(request.ids["thread"])["id"], request.asked("run_id")
        rows = [row for row in self.messages[thread] if run in (None, row["run_id"])]
        return Answer(page(rows, request))

    def _message(self, request: Request) -> Answer:
        rows = {row["id"]: row for row in self.messages[self.thread(request.ids["thread"])["id"]]}
        return Answer(find(rows, request.ids["message"], kind="message"))


def new_message(thread_id: str, role: str, *, content: list[Json]) -> Json:
    """A message object as messages are created and listed."""
    return {
        "id": new_id("msg_"),
        "object": "thread.message",
        "created_at": now(),
        "assistant_id": None,
        "thread_id": thread_id,
        "run_id": None,
        "role": role,
        "content": content,
        "attachments": [],
        "metadata": {},
    }


def text_part(text: str, annotations: list[Json] | None = None) -> Json:
    """Text as the Assistants API wraps it."""
    return {"type": "text", "text": {"value": text, "annotations": annotations or []}}


def _parts(content: str | list[Json]) -> list[Json]:
    if isinstance(content, str):
        return [text_part(content)]
    return [text_part(part["text"]) if part.get("type") == "text" else part for part in content]
