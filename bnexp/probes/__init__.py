"""The microscope: probes measure a network while it trains, and change no bit of the training."""

from bnexp.probes.probe import Moment, Probe, Row, Setup

__all__ = ["Moment", "Probe", "Row", "Setup"]
