"""Integration tests: real servers, real clients, real sockets on loopback."""
