"""Training of the compact networks on puppets, from nothing and again the same.

Only training speakers and training sentences are seen (:func:`.takes.training_takes`);
quality is measured on the others (:mod:`.quality`).
"""
