"""What this machine can use, and a proof of every backend that can run on it."""

from fastaniso.doctor.diagnosis import Check, Diagnosis, diagnose

__all__ = ["Check", "Diagnosis", "diagnose"]
