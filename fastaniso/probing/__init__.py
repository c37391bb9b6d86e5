"""Probes: the hidden states of any ``nn.Module``, reduced as they pass, during inference and during training."""

from fastaniso.probing.live import Probe
from fastaniso.probing.probe import probe
from fastaniso.probing.result import ProbeResult

__all__ = ["Probe", "ProbeResult", "probe"]
