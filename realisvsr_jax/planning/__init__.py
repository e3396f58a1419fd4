"""What a program needs on hardware that is not there, from the compiler."""
