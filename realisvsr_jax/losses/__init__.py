"""Wavelet, HOG and the combined HR loss."""
