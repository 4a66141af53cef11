"""Third-party clients against a gateway. They have their own environment: see `make test-clients`."""
