"""What an operator touches: the command line, the supervisor behind `totalizer up`, the embedded servers."""
