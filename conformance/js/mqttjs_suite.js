// mqtt.js at 3.1, 3.1.1 and 5.0, through what dashboards and gateways do with it.
'use strict';
const assert = require('node:assert/strict');
const mqtt = require('mqtt');
const { check, control, fresh: name, host, run, until, within } = require('./check.js');

const port = Number(process.env.BROKER_MQTT || 1883);
const VERSIONS = [
  { told: '3.1', protocolId: 'MQIsdp', protocolVersion: 3 },
  { told: '3.1.1', protocolId: 'MQTT', protocolVersion: 4 },
  { told: '5', protocolId: 'MQTT', protocolVersion: 5 },
];
const FOREVER = 0xffffffff;
const fresh = (prefix = 't') => name(prefix).replace(/-/g, 'j');
const pause = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

/** A connected client; `messages` is what it has received. */
class Device {
  static async of(version, options = {}) {
    const device = new Device();
    const { told, ...protocol } = version;
    device.clientId = options.clientId || fresh('c');
    device.client = mqtt.connect({
      host, port, ...protocol, clientId: device.clientId, reconnectPeriod: 0, clean: true, ...options,
    });
    device.messages = [];
    device.client.on('message', (topic, payload, packet) => device.messages.push({ topic, text: payload.toString(), payload, packet }));
    device.client.on('error', () => {});
    device.client.on('disconnect', (packet) => { device.told = packet.reasonCode; });
    device.closed = new Promise((resolve) => { device.client.on('close', resolve); });
    device.connack = await within(new Promise((resolve, reject) => {
      device.client.once('connect', resolve);
      device.client.once('error', reject);
      device.client.once('close', () => reject(new Error('closed')));
    }), 'CONNACK');
    return device;
  }

  publish(topic, text, qos = 1, options = {}) {
    return within(this.client.publishAsync(topic, text, { qos, ...options }), 'the end of the handshake');
  }

  async subscribe(topic, options = {}) {
    const granted = await within(this.client.subscribeAsync(topic, { qos: 1, ...options }), 'SUBACK');
    return granted.map((one) => one.qos);
  }

  async take(count = 1) {
    await until(() => this.messages.length >= count, `${count} messages (has ${this.messages.length})`);
    return this.messages.splice(0, count);
  }

  async texts(count = 1) {
    return (await this.take(count)).map((message) => message.text);
  }

  /** Nothing more comes: a message to itself is the next. */
  async nothing() {
    const mark = fresh('mark');
    await this.subscribe(mark);
    await this.publish(mark, mark);
    assert.deepEqual(await this.texts(), [mark]);
  }

  leave(options) { return within(this.client.endAsync(false, options), 'the end'); }

  crash() { this.client.stream.destroy(); }
}

/** One check for each version. */
function each(versions, title, action) {
  for (const version of versions) check(`${title} [${version.told}]`, () => action(version));
}
const five = VERSIONS.slice(2);
const since311 = VERSIONS.slice(1);
const lasting = (version) => ({ clean: false, ...(version.protocolVersion === 5 && { properties: { sessionExpiryInterval: FOREVER } }) });
const forget = async (version, device) => (await Device.of(version, { clientId: device.clientId })).leave();

each(VERSIONS, 'every QoS in, every QoS out', async (version) => {
  const publisher = await Device.of(version);
  for (const granted of [0, 1, 2]) {
    const topic = fresh();
    const subscriber = await Device.of(version);
    assert.deepEqual(await subscriber.subscribe(topic, { qos: granted }), [granted]);
    for (const sent of [0, 1, 2]) {
      await publisher.publish(topic, `${sent}`, sent);
      const [got] = await subscriber.take();
      assert.deepEqual([got.text, got.packet.qos, got.packet.retain], [`${sent}`, Math.min(sent, granted), false]);
    }
    await subscriber.leave();
  }
  await publisher.leave();
});

each(VERSIONS, 'a thousand messages of each QoS in order', async (version) => {
  const [publisher, subscriber, topic] = [await Device.of(version), await Device.of(version), fresh()];
  await subscriber.subscribe(topic, { qos: 2 });
  const wanted = Array.from({ length: 1000 }, (_, n) => `${n}`);
  for (const qos of [0, 1, 2]) {
    // Ten in flight: mqtt.js does not look at the server's receive maximum.
    for (let n = 0; n < 1000; n += 10) await Promise.all(wanted.slice(n, n + 10).map((text) => publisher.publish(topic, text, qos)));
    assert.deepEqual(await subscriber.texts(1000), wanted);
  }
  await Promise.all([publisher.leave(), subscriber.leave()]);
});

each(VERSIONS, 'retained set, replayed by wildcard, cleared', async (version) => {
  const [device, late, root] = [await Device.of(version), await Device.of(version), fresh()];
  for (const n of [0, 1, 2]) await device.publish(`${root}/${n}/state`, `state ${n}`, n, { retain: true });
  await device.publish(`${root}/0/state`, 'state 0', 1, { retain: true });
  await late.subscribe(`${root}/+/state`, { qos: 2 });
  const got = (await late.take(3)).sort((a, b) => (a.topic < b.topic ? -1 : 1));
  assert.deepEqual(got.map((m) => [m.text, m.packet.qos, m.packet.retain]), [['state 0', 1, true], ['state 1', 1, true], ['state 2', 2, true]]);
  for (const n of [0, 1, 2]) await device.publish(`${root}/${n}/state`, '', 1, { retain: true });
  await late.take(3);
  const later = await Device.of(version);
  await later.subscribe(`${root}/#`);
  await later.nothing();
  await Promise.all([device, late, later].map((one) => one.leave()));
});

each(VERSIONS, 'wills: after a crash, not after goodbye, at takeover', async (version) => {
  const [watcher, topic] = [await Device.of(version), fresh()];
  await watcher.subscribe(topic, { qos: 2 });
  const will = { topic, payload: Buffer.from('gone'), qos: 2, retain: false };
  (await Device.of(version, { will })).crash();
  const [got] = await watcher.take();
  assert.deepEqual([got.text, got.packet.qos], ['gone', 2]);
  await (await Device.of(version, { will })).leave();
  await watcher.nothing();
  const old = await Device.of(version, { will });
  const fresher = await Device.of(version, { clientId: old.clientId });
  await within(old.closed, 'the end of the old connection');
  if (version.protocolVersion === 5) assert.equal(old.told, 0x8e);
  assert.deepEqual(await watcher.texts(), ['gone']);
  await Promise.all([watcher.leave(), fresher.leave()]);
});

each(five, 'will delay, will properties and DISCONNECT 4', async (version) => {
  const [watcher, topic] = [await Device.of(version), fresh()];
  await watcher.subscribe(topic);
  const will = { topic, payload: Buffer.from('late'), qos: 1, retain: false, properties: { willDelayInterval: 1, contentType: 'text/x', userProperties: { k: ['1', '2'] } } };
  const begun = Date.now();
  (await Device.of(version, { ...lasting(version), will })).crash();
  const [got] = await watcher.take();
  assert.ok(Date.now() - begun >= 950, 'the will was early');
  assert.deepEqual([got.text, got.packet.properties.contentType, got.packet.properties.userProperties.k], ['late', 'text/x', ['1', '2']]);
  const asked = await Device.of(version, { will: { ...will, payload: Buffer.from('asked'), properties: {} } });
  await asked.leave({ reasonCode: 4 });
  assert.deepEqual(await watcher.texts(), ['asked']);
  await watcher.leave();
});

each(VERSIONS, 'a session keeps what comes while the client is away', async (version) => {
  const [publisher, topic] = [await Device.of(version), fresh()];
  const device = await Device.of(version, lasting(version));
  assert.equal(Boolean(device.connack.sessionPresent), false);
  await device.subscribe(topic, { qos: 2 });
  await device.leave();
  for (let n = 0; n < 30; n += 1) await publisher.publish(topic, `${n}`, 1);
  const back = await Device.of(version, { ...lasting(version), clientId: device.clientId });
  if (version.protocolVersion > 3) assert.equal(back.connack.sessionPresent, true);
  assert.deepEqual(await back.texts(30), Array.from({ length: 30 }, (_, n) => `${n}`));
  await back.nothing();
  await back.leave();
  const clean = await Device.of(version, { clientId: device.clientId });
  assert.equal(Boolean(clean.connack.sessionPresent), false);
  await Promise.all([clean.leave(), publisher.leave()]);
});

each(five, 'session expiry', async (version) => {
  const device = await Device.of(version, { clean: false, properties: { sessionExpiryInterval: 1 } });
  await device.leave();
  await pause(2500);
  const back = await Device.of(version, { ...lasting(version), clientId: device.clientId });
  assert.equal(back.connack.sessionPresent, false);
  await back.leave();
  await forget(version, device);
});

each(since311, 'shared subscriptions share', async (version) => {
  const [topic, publisher, members] = [fresh(), await Device.of(version), []];
  for (let n = 0; n < 3; n += 1) members.push(await Device.of(version));
  for (const member of members) await member.subscribe(`$share/crew/${topic}`);
  for (let n = 0; n < 60; n += 1) await publisher.publish(topic, `${n}`);
  await until(() => members.reduce((sum, member) => sum + member.messages.length, 0) === 60, 'all sixty');
  assert.ok(members.every((member) => member.messages.length >= 10), `${members.map((member) => member.messages.length)}`);
  const got = members.flatMap((member) => member.messages.map((m) => Number(m.text))).sort((a, b) => a - b);
  assert.deepEqual(got, Array.from({ length: 60 }, (_, n) => n));
  await Promise.all([publisher, ...members].map((one) => one.leave()));
});

each(five, 'no local, retain handling, retain as published, subscription identifier', async (version) => {
  const [device, other, topic] = [await Device.of(version), await Device.of(version), fresh()];
  await other.publish(topic, 'kept', 1, { retain: true });
  await device.subscribe(topic, { nl: true, rap: true, rh: 2, properties: { subscriptionIdentifier: 42 } });
  await device.publish(topic, 'mine');
  await other.publish(topic, 'other', 1, { retain: true });
  const [got] = await device.take();
  assert.deepEqual([got.text, got.packet.retain, got.packet.properties.subscriptionIdentifier], ['other', true, 42]);
  await device.nothing();
  await other.publish(topic, '', 1, { retain: true });
  await Promise.all([device.leave(), other.leave()]);
});

each(five, 'topic aliases both ways', async (version) => {
  const [device, publisher, topic] = [
    await Device.of(version, { properties: { topicAliasMaximum: 10 } }),
    await Device.of(version, { autoUseTopicAlias: true, autoAssignTopicAlias: true, properties: { topicAliasMaximum: 10 } }), fresh()];
  await device.subscribe(`${topic}/#`);
  for (let n = 0; n < 40; n += 1) await publisher.publish(`${topic}/${n % 4}`, `${n}`);
  const got = await device.take(40);
  assert.deepEqual(got.map((m) => [m.topic, m.text]), Array.from({ length: 40 }, (_, n) => [`${topic}/${n % 4}`, `${n}`]));
  await Promise.all([device.leave(), publisher.leave()]);
});

each(five, 'receive maximum and maximum packet size', async (version) => {
  const [device, publisher, topic] = [
    await Device.of(version, { properties: { receiveMaximum: 2, maximumPacketSize: 300 } }), await Device.of(version), fresh()];
  await device.subscribe(topic);
  for (let n = 0; n < 30; n += 1) await publisher.publish(topic, n === 10 ? 'x'.repeat(1000) : `${n}`);
  assert.deepEqual(await device.texts(29), Array.from({ length: 30 }, (_, n) => `${n}`).filter((text) => text !== '10'));
  await Promise.all([device.leave(), publisher.leave()]);
});

each(five, 'message expiry', async (version) => {
  const [publisher, topic] = [await Device.of(version), fresh()];
  const device = await Device.of(version, lasting(version));
  await device.subscribe(topic);
  await device.leave();
  await publisher.publish(topic, 'short', 1, { properties: { messageExpiryInterval: 1 } });
  await publisher.publish(topic, 'long', 1, { properties: { messageExpiryInterval: 100 } });
  await pause(2000);
  const back = await Device.of(version, { ...lasting(version), clientId: device.clientId });
  const [got] = await back.take();
  assert.equal(got.text, 'long');
  assert.ok(got.packet.properties.messageExpiryInterval <= 99);
  await Promise.all([back.leave(), publisher.leave()]);
  await forget(version, device);
});

each(five, 'request and response with properties', async (version) => {
  const [asker, answerer, requests, replies] = [await Device.of(version), await Device.of(version), fresh(), fresh()];
  await asker.subscribe(replies);
  await answerer.subscribe(requests);
  const properties = { responseTopic: replies, correlationData: Buffer.from([0, 255, 7]), contentType: 'text/plain', payloadFormatIndicator: true, userProperties: { a: ['1', '2'], b: '3' } };
  await asker.publish(requests, '?', 1, { properties });
  const [got] = await answerer.take();
  const { responseTopic, correlationData, contentType, userProperties } = got.packet.properties;
  assert.deepEqual([responseTopic, contentType, { ...userProperties }], [replies, 'text/plain', { a: ['1', '2'], b: '3' }]);
  await answerer.publish(responseTopic, '!', 1, { properties: { correlationData } });
  const [answer] = await asker.take();
  assert.deepEqual([answer.text, [...answer.packet.properties.correlationData]], ['!', [0, 255, 7]]);
  await Promise.all([asker.leave(), answerer.leave()]);
});

each(VERSIONS, '$SYS', async (version) => {
  const device = await Device.of(version);
  await device.subscribe('$SYS/broker/#');
  await until(() => device.messages.some((m) => m.topic === '$SYS/broker/version'), 'the version');
  await device.leave();
});

each(VERSIONS, 'passwords', async (version) => {
  await (await Device.of(version, { username: 'guest', password: 'guest' })).leave();
  const refused = await Device.of(version, { username: 'guest', password: 'wrong' }).then(() => null, (error) => error);
  assert.ok(refused && [4, 5, 0x86, 0x87].includes(refused.code), `${refused}`);
});

each(VERSIONS, 'keep alive holds an idle connection', async (version) => {
  const [device, topic] = [await Device.of(version, { keepalive: 1 }), fresh()];
  await device.subscribe(topic);
  await pause(3500);
  await device.publish(topic, 'still here');
  assert.deepEqual(await device.texts(), ['still here']);
  await device.leave();
});

each(VERSIONS, 'unsubscribe and overlapping subscriptions', async (version) => {
  const [device, publisher, root] = [await Device.of(version), await Device.of(version), fresh()];
  await device.subscribe({ [`${root}/#`]: { qos: 0 }, [`${root}/+`]: { qos: 2 } });
  await publisher.publish(`${root}/a`, 'x', 2);
  const mark = fresh('mark');
  await device.subscribe(mark);
  await publisher.publish(mark, mark);
  await until(() => device.messages.some((m) => m.topic === mark) && device.messages.some((m) => m.packet.qos === 2), 'mark and QoS 2');
  device.messages.length = 0;
  await device.client.unsubscribeAsync([`${root}/#`, `${root}/+`]);
  await publisher.publish(`${root}/a`, 'y', 2);
  await device.nothing();
  await Promise.all([device.leave(), publisher.leave()]);
});

each(VERSIONS, 'big payloads and topics in UTF-8', async (version) => {
  const [device, root] = [await Device.of(version), fresh()];
  const topic = `${root}/Küche/温度/🚀/a.b`;
  const payload = Buffer.alloc(5 << 20, 'portolan');
  await device.subscribe(`${root}/#`, { qos: 2 });
  for (const qos of [0, 1, 2]) {
    await device.publish(topic, payload, qos);
    const [got] = await device.take();
    assert.equal(got.topic, topic);
    assert.ok(payload.equals(got.payload));
  }
  await device.leave();
});

each(VERSIONS, 'it comes back by itself after a restart of the broker', async (version) => {
  const topic = fresh();
  const device = await Device.of(version, { ...lasting(version), reconnectPeriod: 50 });
  await device.subscribe(topic, { qos: 2 });
  // Not events.once: the attempts that fail meanwhile are error events.
  const again = new Promise((resolve) => { device.client.once('connect', resolve); });
  await control('restart');
  const connack = await within(again, 'the reconnect');
  if (version.protocolVersion > 3) assert.equal(connack.sessionPresent, true);
  const publisher = await Device.of(version);
  for (const qos of [1, 2]) await publisher.publish(topic, `after ${qos}`, qos);
  assert.deepEqual((await device.texts(2)).sort(), ['after 1', 'after 2']);
  await Promise.all([device.leave(), publisher.leave()]);
  await forget(version, device);
});

run();
