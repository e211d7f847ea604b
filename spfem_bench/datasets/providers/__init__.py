"""The providers of clips of this package, one file each; puppets are a plugin."""
