"""Which network sees which clip, batches made of many clips, and the store."""
