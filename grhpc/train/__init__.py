"""From a batch to a step to weights, on Megatron-Core."""
