"""A fleet on one machine: see run_fleet.py."""
