"""Ways round the plugins: dialogues that try to change, delete or read what they must not (THREATS A49)."""
