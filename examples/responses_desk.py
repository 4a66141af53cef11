"""The same support desk with the Responses API, which has conversations."""

import os
from typing import Any

from openai import OpenAI
from openai.types.responses import Response

from athina_trace import athina_trace
from parcels import INSTRUCTIONS, TRACK_PARCEL, use_tool


class ResponsesDesk:
    """A support desk whose conversation OpenAI stores under an id, as it once stored threads."""

    model = os.environ.get("OPENAI_MODEL", "gpt-4.1-mini")
    tools: Any = ({"type": "function", **TRACK_PARCEL},)

    def __init__(self, client: OpenAI) -> None:
        self.client = client
        self.thread_id = client.conversations.create().id

    @athina_trace(prompt_slug="customer-support/v1")
    def answer(self, question: str, context: str) -> str:
        """Answer one question from a document, and call the tools that the model asks for on the way."""
        instructions = f"{INSTRUCTIONS}\n{context}"
        response = self._ask([{"role": "user", "content": question}], instructions)
        while asked := [item for item in response.output if item.type == "function_call"]:
            outputs = [
                {"type": "function_call_output", "call_id": call.call_id, "output": use_tool(call.name, call.arguments)}
                for call in asked
            ]
            response = self._ask(outputs, instructions)
        return response.output_text

    def _ask(self, items: Any, instructions: str) -> Response:
        return self.client.responses.create(
            model=self.model,
            conversation=self.thread_id,
            input=items,
            instructions=instructions,
            tools=self.tools,
        )
