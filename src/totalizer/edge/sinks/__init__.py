"""Where batches go: the contract in `sink`, and the targets that come with the library."""
