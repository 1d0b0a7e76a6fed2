"""From a dataset to prompts."""
