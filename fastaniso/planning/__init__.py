"""What a call will take, before it runs."""
