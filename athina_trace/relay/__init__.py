"""Logs on their way through NATS JetStream: programs publish to a stream, workers deliver from it to Athina.

Everything that knows NATS is in this package. `publisher` takes the place of an engine's senders; `worker` takes from
the stream. Nothing here is loaded unless ATHINA_RELAY is set.
"""
