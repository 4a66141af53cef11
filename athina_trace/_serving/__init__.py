"""Shared by the servers of this package: the socket, access rules, Athina's endpoints. Needs starlette."""
