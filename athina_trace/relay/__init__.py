"""Delivery through NATS JetStream: programs publish logs to a stream, and workers deliver them to Athina.

Everything about NATS is in this package. `publisher` replaces an engine's senders; `worker` takes logs from
the stream. Nothing here is loaded unless ATHINA_RELAY is set.
"""
