"""A procedural world of talking puppets whose truth is known exactly."""
