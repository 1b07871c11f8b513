"""Every rule of MQTT 3.1.1 and 5.0 that can be seen on the wire, by packets written by hand."""

import rules  # noqa: I001  (finds the packet codec for the others)
import connect_rules  # noqa: F401  (registers its checks)
import golden_rules  # noqa: F401
import malformed_rules  # noqa: F401
import message_rules  # noqa: F401
import scram_rules  # noqa: F401
import session_rules  # noqa: F401

if __name__ == "__main__":
    rules.run()
