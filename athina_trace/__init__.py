"""Log the conversations of AI assistants to Athina: durable at once, delivered in the background."""
