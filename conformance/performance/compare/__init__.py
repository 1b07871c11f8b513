"""How the brokers are built, started, loaded and compared."""
