"""The command line: `athina-trace`, or `python -m athina_trace`.

Each command is a module in `commands`. Those that serve pages need the extra `ui`; all others run without it.
"""
