"""grhpc: reinforcement learning for language models on SLURM, with a generative verifier for the reward."""

__version__ = "0.1.0"
