"""Evaluation suite for speech-preserving facial expression manipulation (SPFEM).

The rooms, from top to bottom; each imports only from those below it:

``cli`` · ``reporting`` · ``evaluation`` · ``statistics`` · ``features`` ·
``faces`` · ``networks`` · ``media`` · ``definitions``
"""

from importlib.metadata import version

__version__ = version("spfem-bench")
