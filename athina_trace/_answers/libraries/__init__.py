"""Reads answers and messages of libraries other than OpenAI's by the shape of their plain data.

Libraries and versions mostly do not matter: a message has a role and a content, an answer has a text and token counts,
a chain returns its input beside its output. Only forms that say less, and those of streams, are listed by library:
LangChain, LangGraph, Anthropic, the Agents SDK, pydantic-ai, Google's genai, Bedrock's Converse, Cohere, Ollama,
Mistral, LlamaIndex, Haystack, AutoGen. Messages that are already role dictionaries do not need this, and OpenAI's own
objects are read by `integrations.openai`.
"""

from athina_trace._answers.libraries.answers import answer_of, read
from athina_trace._answers.libraries.counts import COUNTS, as_count
from athina_trace._answers.libraries.pieces import Answers, Piece, fields_of
from athina_trace._answers.libraries.prompts import prompt_of

__all__ = ["COUNTS", "Answers", "Piece", "answer_of", "as_count", "fields_of", "prompt_of", "read"]
