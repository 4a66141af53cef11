"""An HTTP address in front of the outbox, for every language: Athina's own API, and OTLP.

    clients ── connections ── app ─┬─ athina              Athina's API  ─┬─ commits ── forward ── the outbox
               (how many,          ├─ otlp ── traces      spans         ─┘
                how slow)          └─ /healthz, /readyz, /metrics

It needs the extra `gateway`.
"""
