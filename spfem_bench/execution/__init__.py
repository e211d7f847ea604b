"""Who computes features: this process, several processes, or workers on Ray."""
