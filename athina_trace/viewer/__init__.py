"""The viewer: shows the logs in an outbox, as pages in a browser and as tables in a terminal.

The modules that read (`indexed_outbox`, `queries`, `conversation`, …) need the standard library and pydantic; those
that serve pages (`app`, `pages`, `access`, `markdown`) need the extra `ui`.
"""
