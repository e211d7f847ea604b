"""Training of the profile ``compact``'s networks on training puppets and sentences only."""
