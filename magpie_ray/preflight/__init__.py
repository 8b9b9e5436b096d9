"""What is looked up and checked before anything starts."""
