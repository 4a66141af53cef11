"""Answers and messages of other libraries than OpenAI's, read by the shape of their plain data.

Neither a library nor its version matters: a message has a role and a content, an answer has its text beside the tokens
that it took, a chain gives back what it was asked beside what it answers. The forms that say less, and those of
streams, are listed: LangChain, LangGraph, Anthropic, the Agents SDK, pydantic-ai, Google's genai, Bedrock's Converse,
Cohere, Ollama, Mistral, LlamaIndex, Haystack, AutoGen. Messages that are role dictionaries already need nothing of
this, and OpenAI's own objects are read by `integrations.openai`.
"""

from athina_trace._answers.libraries.answers import answer_of, read
from athina_trace._answers.libraries.counts import COUNTS
from athina_trace._answers.libraries.pieces import Answers, Piece, fields_of
from athina_trace._answers.libraries.prompts import prompt_of

__all__ = ["COUNTS", "Answers", "Piece", "answer_of", "fields_of", "prompt_of", "read"]
