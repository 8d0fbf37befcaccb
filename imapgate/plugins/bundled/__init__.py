"""The plugins that come with the gate, each written on :mod:`imapgate.plugins.api` alone, as anybody's would be."""
