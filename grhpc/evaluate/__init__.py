"""Evaluation: benchmarks to questions, questions to responses, responses to scores, scores to a table."""
