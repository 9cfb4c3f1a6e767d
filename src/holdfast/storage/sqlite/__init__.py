"""The backend that keeps everything in one SQLite database."""
