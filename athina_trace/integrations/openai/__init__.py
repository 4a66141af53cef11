"""OpenAI clients and their objects, read by shape: the `openai` package is never imported from here."""
