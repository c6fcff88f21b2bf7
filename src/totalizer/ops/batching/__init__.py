"""What the commands of the batching library have in common. All of it works with the client's install."""
