"""From frames to what a network wants: detect, follow one subject, align, crop."""
