"""The crowd: many sessions of one user in the same few mailboxes; the picture of each must be the truth."""
