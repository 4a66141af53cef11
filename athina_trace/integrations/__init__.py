"""Integrations: sources of answers. Each module depends on its host package only."""
