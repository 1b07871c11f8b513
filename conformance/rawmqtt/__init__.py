"""MQTT bytes written for these suites alone, so that a mistake in Portolan's codec cannot hide behind the same one here."""
