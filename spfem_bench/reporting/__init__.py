"""Results turned into Markdown, CSV, LaTeX, HTML, text and figures: pure functions.

One file for each command; ``pages`` are the documentation's. They share ``grids`` (any table of
results in any format), ``drawing`` (the figures' look) and ``templating``.
"""
