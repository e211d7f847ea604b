"""Metric kinds, one file each.

A kind turns the features of an item's clips into a part (named sums and counts), and any list of
parts (of one emotion, of a bootstrap sample) into a score. Its interface is `base.MetricKind`.
"""
