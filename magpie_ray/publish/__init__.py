"""What is made of a build for others."""
