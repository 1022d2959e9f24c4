"""What sensors saw, on disk: recordings read and written. OpenCV is imported with the first image, not before."""

from bodyfit.recording.native import Recording, Sensor, open_recording
from bodyfit.recording.write import write_recording

__all__ = ["Recording", "Sensor", "open_recording", "write_recording"]
