"""A procedural world of talking puppets with exact truth, and the models trained on it."""
