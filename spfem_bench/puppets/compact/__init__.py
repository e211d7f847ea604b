"""Training of the profile ``compact``'s networks on puppets.

Training uses training speakers and training sentences only (:func:`.takes.training_takes`);
quality is measured on the others (:mod:`.quality`).
"""
