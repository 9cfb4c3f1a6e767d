"""What a user can ask for, written once, whatever the face."""
