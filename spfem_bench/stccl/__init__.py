"""STCCL, the reference method: local correlations that survive a change of emotion.

Chen et al., ASCCL (CVPR 2024, equations 1 to 7), and its successor STCCL (IEEE TPAMI 2026, doi
10.1109/TPAMI.2026.3687518), which adds time and correlation matrices.
"""
