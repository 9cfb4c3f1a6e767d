"""The only place that chooses concrete parts."""
