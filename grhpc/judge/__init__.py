"""Pairs of reference and answer to decisions: rules, and a generative judge wherever it runs."""
