"""How good a verifier is: against labelled pairs, and against answers that were written to fool it."""
