"""Networks: one file for each architecture, which registers itself."""
