"""Live windows: the last minutes and hours of every organisation, as events are admitted."""
