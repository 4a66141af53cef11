"""Log the conversations of AI assistants to Athina: durable before the call returns, delivered in the background."""
