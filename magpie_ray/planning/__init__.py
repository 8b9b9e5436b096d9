"""What a build will take."""
