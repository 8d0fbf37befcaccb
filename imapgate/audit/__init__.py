"""The audit trail: who did what to which message, as records that show whether one is missing."""
