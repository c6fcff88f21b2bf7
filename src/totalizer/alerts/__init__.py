"""Who is told of what the checks find: rules, channels, silence, history."""
