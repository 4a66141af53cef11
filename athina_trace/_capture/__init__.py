"""A call of a decorated function → the fields of one log."""
