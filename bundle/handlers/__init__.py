"""What listens to the engines."""
