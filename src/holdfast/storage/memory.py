"""The backend that keeps everything in memory."""
