"""The same support desk on the Responses API, where a conversation is a conversation."""

import os
from typing import Any

from openai import OpenAI
from openai.types.responses import Response

from athina_trace import athina_trace, current_log
from parcels import INSTRUCTIONS, TRACK_PARCEL, find_document, use_tool


class ResponsesDesk:
    """A support desk whose conversation OpenAI keeps under an id, as it once kept threads."""

    model = os.environ.get("OPENAI_MODEL", "gpt-4.1-mini")
    tools: Any = ({"type": "function", **TRACK_PARCEL},)

    def __init__(self, client: OpenAI) -> None:
        self.client = client
        self.thread_id = client.conversations.create().id

    @athina_trace(prompt_slug="customer-support/v1")
    def answer(self, question: str) -> str:
        """Answer one question."""
        document = find_document(question)
        instructions = f"{INSTRUCTIONS}\n{document}"
        responses, tool_calls = self._respond(question, instructions)
        used = [response.usage for response in responses if response.usage]
        current_log().update(
            language_model_id=responses[-1].model,
            prompt=[{"role": "system", "content": instructions}, {"role": "user", "content": question}],
            context=document,
            tools=self.tools,
            tool_calls=tool_calls,
            prompt_tokens=sum(usage.input_tokens for usage in used),
            completion_tokens=sum(usage.output_tokens for usage in used),
            total_tokens=sum(usage.total_tokens for usage in used),
        )
        return responses[-1].output_text

    def _respond(self, question: str, instructions: str) -> tuple[list[Response], list[dict[str, str]]]:
        """Ask until there is an answer, and call the tools that the model asks for on the way."""
        tool_calls: list[dict[str, str]] = []
        responses = [self._ask([{"role": "user", "content": question}], instructions)]
        while asked := [item for item in responses[-1].output if item.type == "function_call"]:
            made = [use_tool(call.call_id, call.name, call.arguments) for call in asked]
            tool_calls += made
            outputs = [{"type": "function_call_output", "call_id": c["id"], "output": c["output"]} for c in made]
            responses.append(self._ask(outputs, instructions))
        return responses, tool_calls

    def _ask(self, said: Any, instructions: str) -> Response:
        return self.client.responses.create(
            model=self.model,
            conversation=self.thread_id,
            input=said,
            instructions=instructions,
            tools=self.tools,
        )
