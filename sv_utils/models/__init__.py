"""Encoders: waveform in, unit vector out. Knows Keras."""
