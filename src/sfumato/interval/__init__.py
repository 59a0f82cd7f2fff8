"""Calibrated uncertainty: bounds on risks, interval families, their calibration, and the tests of the promise.

The unit of every promise is the clip, one independent excerpt of one recording. Cells inside a clip (samples, bins,
bands) depend on each other and are never counted.
"""
