"""The parity suite: dialogues played straight to real servers and through the gate, their transcripts compared."""
