"""Live sensors: their frames written as a native recording while they come, with advice to who stands there."""
