"""What sensors saw, on disk and in memory: recordings read and written. OpenCV is imported with the first image, not
before."""

from bodyfit.recording.memory import MemoryInstant, MemoryRecording, frames_recording
from bodyfit.recording.native import Recording, Sensor, open_recording
from bodyfit.recording.source import FrameSource
from bodyfit.recording.write import write_recording

__all__ = [
    "FrameSource",
    "MemoryInstant",
    "MemoryRecording",
    "Recording",
    "Sensor",
    "frames_recording",
    "open_recording",
    "write_recording",
]
