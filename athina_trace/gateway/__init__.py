"""One HTTP address in front of the outbox, for every language: Athina's own API, and OTLP.

    clients ── connections ── app ─┬─ athina      Athina's API         ┐
               (how many,          ├─ otlp        spans                ├─ forward ── the outbox
                how slow)          └─ /healthz, /readyz, /metrics      ┘

It needs the extra `gateway`.
"""
