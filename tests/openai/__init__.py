"""OpenAI's objects, read by shape."""
