"""Wraps functions of any kind, and follows their results until they end."""
