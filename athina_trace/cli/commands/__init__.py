"""The commands: each module has `add`, which defines its options, and `run`, which returns the exit code."""
