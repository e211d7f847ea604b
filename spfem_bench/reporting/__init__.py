"""Results turned into Markdown, CSV, LaTeX, HTML, text and figures: pure functions.

One file for each command: ``audit``, ``check``, ``compare``, ``discovery`` (correlate),
``heatmaps`` (score), ``preference``, ``recordings`` (data index), ``report/``, ``tables`` (table,
eval), ``training`` (train), ``validation`` (validate, with ``validation_figure``).

They share ``grids`` (any table of results in any format, escaped), ``drawing`` (the figures' look)
and ``templating`` (files in ``templates/``). ``pages`` are the documentation's, made from cards.
"""
