"""Planning for frameworks: trace a program, submit its graph once, replay the program unchanged."""
