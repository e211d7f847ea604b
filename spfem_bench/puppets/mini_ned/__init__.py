"""Mini-NED: a small model that changes the emotion of puppets, with and without STCCL.

Laid out as NED (Papantoniou et al., *Neural Emotion Director*, CVPR 2022): a morphable model
and the network that finds its coefficients in frames (:mod:`.morphable`, :mod:`.networks`), a
manipulator of coefficients, and a renderer of frames. Only training puppets and training
sentences are used, and never two takes that differ in their emotion alone.
"""
