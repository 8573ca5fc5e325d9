"""NBD: the protocol's core (bytes in, bytes out) and a server that speaks it over sockets."""
