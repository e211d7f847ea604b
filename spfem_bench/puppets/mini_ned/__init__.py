"""Mini-NED: a small model that changes the emotion of puppets, with and without STCCL.

Laid out as NED (Papantoniou et al., CVPR 2022); never trained on two takes that differ in emotion.
"""
