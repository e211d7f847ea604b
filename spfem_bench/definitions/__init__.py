"""Cards and lists turned into frozen, validated objects. No media, no networks."""
