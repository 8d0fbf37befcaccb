"""Floor 4: which upstream a client goes to, and in which order that upstream's endpoints are tried."""
