"""The puppets as a provider of clips: registered when this module is imported."""
