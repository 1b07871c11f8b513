"""A tiny AMQP 0-9-1 client that can also speak wrongly; Python's standard library only."""
