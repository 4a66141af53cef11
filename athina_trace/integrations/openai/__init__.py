"""Captures the answers of OpenAI clients, whose objects are read by shape: `openai` is never imported from here."""
