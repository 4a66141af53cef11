"""The command line: `athina-trace`, the same as `python -m athina_trace`.

Its packages come with the extra `ui`, which `import athina_trace` never needs.
"""
