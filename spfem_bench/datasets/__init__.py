"""Where clips come from: folders, indexed recordings, layouts of other systems, pairs."""
