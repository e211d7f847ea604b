"""Frames and sound out of any clip, at 25 frames and 16,000 samples a second."""
