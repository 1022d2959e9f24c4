"""Fits everything under a folder, unattended: `bodyfit batch`."""
