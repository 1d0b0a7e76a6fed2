"""From verdicts to a batch and a loss: arithmetic only."""
