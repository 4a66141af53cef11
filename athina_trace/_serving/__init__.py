"""What the servers of this package share: the socket, the rules of access, Athina's endpoints. Needs starlette."""
