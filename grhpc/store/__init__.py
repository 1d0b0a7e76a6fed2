"""The shared filesystem: files that appear whole or not at all, and what is built on them."""
