"""What is evaluated: anything that can be asked for a layer or a depth."""
