"""Pure book-keeping: who holds which upstream connection, and why."""
