"""The gRPC server over tabml, for a parent process in another language; a later release fills this package."""
