"""From rollouts to verdicts."""
