"""From a committed entry to Athina: outbox, policy, transport, engine."""
