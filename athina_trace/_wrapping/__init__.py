"""Surround a call of any kind of function, and drive what it returns."""
