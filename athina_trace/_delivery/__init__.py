"""Delivers committed entries to Athina: the outbox, the retry policy, the transport and the engine."""
