"""From a response to its answer, and from an answer to a decision."""
