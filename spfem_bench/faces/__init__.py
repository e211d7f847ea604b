"""From frames to the input of networks: detect, follow one subject, align, crop."""
