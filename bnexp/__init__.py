"""bnexp: does this normalisation, optimiser or learning rate help, and how sure are we?"""

__version__ = "0.1.0"
