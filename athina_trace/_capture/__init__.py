"""Turns the call of a decorated function into the fields of one log."""
