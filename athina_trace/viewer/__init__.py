"""The viewer: what an outbox holds, as pages in a browser and as tables in a terminal.

What reads (`indexed_outbox`, `queries`, `conversation`, …) needs the standard library and pydantic; what serves pages
(`app`, `pages`, `access`, `markdown`) needs the extra `ui`.
"""
