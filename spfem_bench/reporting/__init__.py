"""Run records turned into Markdown, CSV, LaTeX and text. Pure functions."""
