"""Components of one item and one pure aggregator for each statistic.

A statistic module has two functions. ``components`` turns the features of an
item's clips into named sums and counts; ``score`` turns any list of components
(of one emotion, of a bootstrap sample, of a shard) into the value. Nothing else
is ever averaged.
"""
