"""What is changed in a program before pnnx reads it, and in the network that pnnx wrote."""
