"""The arithmetic of pixels, edges and vertices in Numba loops: arrays and floats only.

A kernel that another kernel calls has `forceinline=True` (or `inline="always"`). Left as a call, it would exist twice,
compiled alone and compiled with its caller, which round differently in the last bits; which of the two runs would be
decided by what the process had loaded first, and whether it compiled anything or read it from the cache.
"""
