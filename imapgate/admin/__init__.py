"""What operators see of a running gate, and what they do to it."""
