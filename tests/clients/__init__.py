"""Other people's clients against a gateway. They live in an environment of their own: see `make test-clients`."""
