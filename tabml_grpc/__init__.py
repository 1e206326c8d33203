"""A thin gRPC server over tabml, for a parent process in any language that spawns and drives it."""
