"""Links between server and devices: one small interface (``base``), three implementations.

``memory`` moves messages inside the process, ``mqtt`` talks to any MQTT 3.1.1 broker with paho; brokers are
``mosquitto`` (started by the run) and ``embedded`` (amqtt, pure Python). The same conformance tests run on
all of them. ``proxy`` stands between client and broker and loses, doubles, swaps, delays and cuts on purpose.
"""
