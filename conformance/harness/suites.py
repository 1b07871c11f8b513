"""The suites: what each runs, what it needs, and how long it may take."""

import os
from dataclasses import dataclass, field

from .tools import CONFORMANCE, JAVA_CLIENT, ROOT, VENV, target_folder

PYTHON = str(VENV / "bin/python")
DEBUG = target_folder() / "debug"
JAVA_CLASSES = "{scratch}/classes"


@dataclass
class Suite:
    """One command, spoken to through its standard output. `{…}` in the commands is filled in per run.

    The command finds its broker in BROKER_HOST, BROKER_PORT and BROKER_CONTROL, and in `{address}`.
    """

    name: str
    command: list
    seconds: int
    needs: list = field(default_factory=list)
    before: list = field(default_factory=list)
    config: object = None
    settings: list = field(default_factory=list)
    environment: dict = field(default_factory=dict)
    # It speaks MQTT, to the port in BROKER_MQTT.
    mqtt: bool = False
    # It depends on those settings, or looks at our metrics: another broker cannot pass it.
    ours: bool = False
    # What the command must be told besides when the broker is not ours.
    peer_arguments: list = field(default_factory=list)


def _mqtt(name, command, seconds, needs=(), **more):
    return Suite(name, [str(word) for word in command], seconds, needs=list(needs), mqtt=True, **more)


def _python(name, path, seconds):
    return Suite(name, [PYTHON, "-u", str(CONFORMANCE / path)], seconds, needs=["python"])


SUITES = [
    Suite(
        "transcripts",
        ["python3", "-u", str(CONFORMANCE / "transcripts/runner.py"), "{address}"],
        240,
        config=CONFORMANCE / "transcripts/users.toml",
        peer_arguments=["--rabbitmq"],
    ),
    _python("pika", "python/pika_suite.py", 180),
    Suite(
        "alarms",
        [PYTHON, "-u", str(CONFORMANCE / "python/alarm_suite.py")],
        120,
        needs=["python"],
        # So little that a client fills it at once, and no paging, which would keep messages out of memory.
        settings=['limits.memory="384 MiB"', 'limits.message_memory="8 GiB"'],
        ours=True,
    ),
    _python("aio-pika", "python/aio_pika_suite.py", 120),
    _python("kombu", "python/kombu_suite.py", 120),
    _python("celery", "python/celery_suite.py", 180),
    Suite("amqplib", ["node", str(CONFORMANCE / "js/amqplib_suite.js")], 120, needs=["node"]),
    Suite(
        "java",
        ["java", "-cp", f"{JAVA_CLASSES}:{JAVA_CLIENT}:/usr/share/java/slf4j-api.jar:/usr/share/java/slf4j-nop.jar", "JavaSuite"],
        120,
        needs=["java"],
        before=["javac", "-Xlint:all,-options", "-cp", str(JAVA_CLIENT), "-d", JAVA_CLASSES, str(CONFORMANCE / "java/JavaSuite.java")],
    ),
    Suite("amqp-tools", ["bash", str(CONFORMANCE / "c/amqp_tools_suite.sh")], 60, needs=["amqp-tools"]),
    Suite("lapin", [str(DEBUG / "lapin-suite")], 120, needs=["rust"]),
    Suite(
        "examples",
        ["python3", "-u", str(CONFORMANCE / "harness/examples_suite.py")],
        120,
        needs=["python", "node", "rust"],
        environment={"EXAMPLES": str(ROOT / "examples"), "PYTHON": PYTHON, "RUST_EXAMPLES": str(DEBUG),
                     "NODE_PATH": str(CONFORMANCE / "js/node_modules")},
    ),  # fmt: skip
    Suite(
        "hostile",
        ["python3", "-u", str(CONFORMANCE / "hostile/hostile_suite.py")],
        240,
        # A share of the machine's memory, the default, would let the suite prove nothing.
        settings=['limits.message_memory="64 MiB"'],
    ),
    Suite(
        "faults",
        ["python3", "-u", str(CONFORMANCE / "faults/faults_suite.py")],
        240,
        environment={"PORTOLAN": str(target_folder() / "release/portolan")},
    ),
    Suite("crash", [str(DEBUG / "crash-suite")], 60 + 20 * int(os.environ.get("CRASH_ROUNDS", "5")), needs=["rust"]),
    Suite("mqtt-requirements", ["python3", "-u", str(CONFORMANCE / "requirements/check.py")], 60, ours=True),
    # Codec against codec: no broker takes part.
    Suite("second-opinion", [str(DEBUG / "second-opinion")], 60, needs=["rumqttd"], ours=True),
    _mqtt("mqtt-rules", ["python3", "-u", CONFORMANCE / "mqtt/rules_suite.py"], 400),
    _mqtt("paho", [PYTHON, "-u", CONFORMANCE / "mqtt/paho_suite.py"], 240, ["python"]),
    _mqtt(
        "paho-c",
        ["{scratch}/paho-suite"],
        120,
        ["paho-c"],
        before=["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", "{scratch}/paho-suite", str(CONFORMANCE / "c/paho_suite.c"), "-lpaho-mqtt3c"],
    ),
    _mqtt("mosquitto-clients", ["bash", CONFORMANCE / "c/mosquitto_suite.sh"], 180, ["mosquitto-clients"]),
    _mqtt("mqttjs", ["node", CONFORMANCE / "js/mqttjs_suite.js"], 180, ["node"]),
    _mqtt("rumqttc", [DEBUG / "rumqttc-suite"], 180, ["rust"]),
    _mqtt("mqtt-amqp", [PYTHON, "-u", CONFORMANCE / "mqtt/interop_suite.py"], 180, ["python"], ours=True),
    _mqtt(
        "fleet",
        [PYTHON, "-u", CONFORMANCE / "harness/fleet_suite.py"],
        120,
        ["python"],
        environment={"EXAMPLES": str(ROOT / "examples")},
    ),
    _mqtt(
        "mqtt-crash",
        ["python3", "-u", CONFORMANCE / "mqtt/crash_suite.py"],
        120 + 20 * int(os.environ.get("CRASH_ROUNDS", "5")),
        ours=True,
    ),
]
