"""Numbers about numbers: comparing runs, auditing published tables, votes, discovery."""
