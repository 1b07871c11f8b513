// amqplib, the JavaScript client, through what its users rely on.
'use strict';
const assert = require('node:assert/strict');
const { once } = require('node:events');
const amqp = require('amqplib');
const { check, control, fresh, host, port, run, until, within } = require('./check.js');

const options = { hostname: host, port, username: 'guest', password: 'guest', vhost: '/' };
// The last answer of a connection that we closed or killed on purpose may be an error event; it is not a failure.
const quiet = (emitter) => emitter.on('error', () => {});

async function withChannel(action, { confirm = false, ...more } = {}) {
  const connection = quiet(await amqp.connect({ ...options, ...more }));
  try {
    const channel = quiet(confirm ? await connection.createConfirmChannel() : await connection.createChannel());
    return await action(channel, connection);
  } finally {
    await connection.close().catch(() => {});
  }
}

const confirmed = (action) => () => withChannel(action, { confirm: true });
const plain = (action) => () => withChannel((channel, connection) => action(channel, connection));

async function queueOf(channel, settings = {}) {
  return (await channel.assertQueue('', { exclusive: true, ...settings })).queue;
}

async function send(channel, queue, body, properties = {}) {
  channel.sendToQueue(queue, Buffer.from(body), properties);
  if (channel.waitForConfirms) await channel.waitForConfirms();
}

const get = (channel, queue, settings = {}) => until(() => channel.get(queue, settings), `a message in ${queue}`);

/** Collects deliveries. */
async function inbox(channel, queue, settings = {}) {
  const items = [];
  const { consumerTag } = await channel.consume(queue, (message) => items.push(message), settings);
  return { items, consumerTag, bodies: () => items.map((m) => m.content.toString()) };
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

check('confirmed publish and manual ack', confirmed(async (channel) => {
  const queue = await queueOf(channel);
  await send(channel, queue, 'hello', { persistent: true });
  const box = await inbox(channel, queue);
  await until(() => box.items.length === 1, 'the delivery');
  channel.ack(box.items[0]);
  await channel.cancel(box.consumerTag);
  assert.equal((await channel.checkQueue(queue)).messageCount, 0);
}));

check('thousands of confirms in flight', confirmed(async (channel) => {
  const queue = await queueOf(channel);
  let confirms = 0;
  for (let i = 0; i < 5000; i += 1) {
    if (!channel.publish('', queue, Buffer.from(String(i)), { persistent: true }, (error) => { confirms += error ? 0 : 1; })) {
      await within(once(channel, 'drain'), 'drain');
    }
  }
  await channel.waitForConfirms();
  assert.equal(confirms, 5000);
  assert.equal((await channel.checkQueue(queue)).messageCount, 5000);
}));

check('exchanges of the four types', confirmed(async (channel) => {
  const cases = [['direct', 'k', {}, 'k', {}], ['fanout', '', {}, 'any', {}], ['topic', 'a.*.#', {}, 'a.b.c', {}],
    ['headers', '', { 'x-match': 'all', h: 1 }, '', { h: 1 }]];
  for (const [type, binding, bindingArguments, key, headers] of cases) {
    const { exchange } = await channel.assertExchange(fresh('x'), type, { durable: false, autoDelete: true });
    const queue = await queueOf(channel);
    await channel.bindQueue(queue, exchange, binding, bindingArguments);
    channel.publish(exchange, key, Buffer.from(type), { headers });
    await channel.waitForConfirms();
    assert.equal((await get(channel, queue, { noAck: true })).content.toString(), type);
  }
}));

check('exchange to exchange and alternate exchange', confirmed(async (channel) => {
  const [one, two] = [fresh('x'), fresh('x')];
  await channel.assertExchange(two, 'fanout', { durable: false, autoDelete: true });
  await channel.assertExchange(one, 'direct', { durable: false, alternateExchange: two });
  const queue = await queueOf(channel);
  await channel.bindQueue(queue, two, '');
  channel.publish(one, 'unknown', Buffer.from('by the alternate'));
  await channel.bindExchange(two, one, 'k');
  channel.publish(one, 'k', Buffer.from('by the binding'));
  await channel.waitForConfirms();
  assert.equal((await get(channel, queue)).content.toString(), 'by the alternate');
  assert.equal((await get(channel, queue)).content.toString(), 'by the binding');
  await channel.unbindExchange(two, one, 'k');
  await channel.deleteExchange(one);
}));

check('mandatory message without a queue is returned', confirmed(async (channel) => {
  const returned = once(channel, 'return');
  channel.publish('', fresh('nowhere'), Buffer.from('back'), { mandatory: true, messageId: '7' });
  const [message] = await within(returned, 'return');
  assert.equal(message.fields.replyCode, 312);
  assert.equal(message.properties.messageId, '7');
  await channel.waitForConfirms();
}));

check('prefetch per consumer and shared', confirmed(async (channel) => {
  for (const shared of [false, true]) {
    const queue = await queueOf(channel);
    await channel.prefetch(2, shared);
    const boxes = [await inbox(channel, queue), await inbox(channel, queue)];
    for (let i = 0; i < 10; i += 1) channel.sendToQueue(queue, Buffer.from(String(i)));
    await channel.waitForConfirms();
    const wanted = shared ? 2 : 4;
    const held = () => boxes[0].items.length + boxes[1].items.length;
    await until(() => held() === wanted, `${wanted} deliveries`);
    await pause(200);
    assert.equal(held(), wanted);
    channel.ackAll();
    await until(() => held() >= wanted + 2, 'more after the ack');
    await channel.deleteQueue(queue);
    channel.ackAll();
    await channel.prefetch(0, shared);
  }
}));

check('nack, reject and requeue', confirmed(async (channel) => {
  const queue = await queueOf(channel);
  await send(channel, queue, 'a');
  channel.nack(await get(channel, queue));
  const again = await get(channel, queue);
  assert.equal(again.fields.redelivered, true);
  channel.reject(again, false);
  assert.equal((await channel.checkQueue(queue)).messageCount, 0);
}));

check('dead letters carry x-death', confirmed(async (channel) => {
  const dead = await queueOf(channel);
  const queue = await queueOf(channel, { deadLetterExchange: '', deadLetterRoutingKey: dead, messageTtl: 50 });
  await send(channel, queue, 'x');
  const message = await get(channel, dead);
  const [death] = message.properties.headers['x-death'];
  assert.deepEqual([death.reason, death.queue, death.count, death['routing-keys']], ['expired', queue, 1, [queue]]);
  assert.equal(death.time['!'], 'timestamp');
}));

check('queue settings: expires, max-length, priority', confirmed(async (channel) => {
  const short = await queueOf(channel, { maxLength: 2, expires: 60_000 });
  for (const body of ['1', '2', '3']) await send(channel, short, body);
  assert.equal((await get(channel, short)).content.toString(), '2');
  const ranked = await queueOf(channel, { maxPriority: 5 });
  await send(channel, ranked, 'low', { priority: 1 });
  await send(channel, ranked, 'high', { priority: 5 });
  assert.equal((await get(channel, ranked)).content.toString(), 'high');
}));

check('full queue nacks the publish', confirmed(async (channel) => {
  const queue = await queueOf(channel, { maxLength: 1, arguments: { 'x-overflow': 'reject-publish' } });
  await send(channel, queue, 'in');
  await assert.rejects(send(channel, queue, 'out'));
}));

check('durable and exclusive queue', plain(async (channel) => {
  const name = fresh();
  await channel.assertQueue(name, { durable: true, exclusive: true });
  await withChannel(async (other) => {
    await assert.rejects(other.checkQueue(name), /RESOURCE_LOCKED/);
  });
}));

check('auto-delete queue goes with its consumer', plain(async (channel) => {
  const name = fresh();
  await channel.assertQueue(name, { autoDelete: true });
  const box = await inbox(channel, name);
  await channel.cancel(box.consumerTag);
  await assert.rejects(channel.checkQueue(name), /404/);
}));

check('consumer cancel notification is a null message', plain(async (channel) => {
  const queue = (await channel.assertQueue(fresh(), { durable: false })).queue;
  const box = await inbox(channel, queue);
  await withChannel((other) => other.deleteQueue(queue));
  await until(() => box.items.length === 1 && box.items[0] === null, 'the null message');
}));

check('recover, get and ackAll', confirmed(async (channel) => {
  const queue = await queueOf(channel);
  await send(channel, queue, 'a');
  await send(channel, queue, 'b');
  assert.equal((await get(channel, queue)).fields.messageCount, 1);
  await channel.recover();
  assert.equal((await get(channel, queue)).fields.redelivered, true);
  await get(channel, queue);
  channel.ackAll();
  assert.equal(await channel.get(queue), false);
}));

check('headers of all types come back', confirmed(async (channel) => {
  const queue = await queueOf(channel);
  const headers = {
    yes: true, no: false, int: 42, negative: -7, big: 2 ** 40, double: 1.5, text: 'grüße', nothing: null,
    bytes: Buffer.from([0, 255]), list: [1, 'two', null, [true]], table: { inner: { deep: 1 } },
    stamp: { '!': 'timestamp', value: 1700000000 }, byte: { '!': 'int8', value: 5 }, short: { '!': 'int16', value: 500 },
    float: { '!': 'float', value: 0.5 }, decimal: { '!': 'decimal', value: { digits: 314, places: 2 } },
  };
  await send(channel, queue, '', { headers, type: 't', appId: 'a', userId: 'guest', timestamp: 1, expiration: '60000', replyTo: 'r' });
  const { properties, content } = await get(channel, queue, { noAck: true });
  const plainly = { ...headers, byte: 5, short: 500, float: 0.5 };
  assert.deepEqual(properties.headers, plainly);
  assert.deepEqual([properties.type, properties.appId, properties.userId, properties.expiration, content.length], ['t', 'a', 'guest', '60000', 0]);
}));

check('big messages', confirmed(async (channel) => {
  const queue = await queueOf(channel);
  for (const size of [1 << 20, 20 << 20]) {
    const data = Buffer.alloc(size, 'portolan');
    channel.sendToQueue(queue, data);
    await channel.waitForConfirms();
    assert.ok((await get(channel, queue, { noAck: true })).content.equals(data));
  }
}));

check('direct reply-to', plain(async (channel) => {
  const requests = await queueOf(channel);
  await withChannel(async (client) => {
    const replies = await inbox(client, 'amq.rabbitmq.reply-to', { noAck: true });
    client.sendToQueue(requests, Buffer.from('ping'), { replyTo: 'amq.rabbitmq.reply-to', correlationId: '1' });
    const request = await get(channel, requests, { noAck: true });
    channel.sendToQueue(request.properties.replyTo, Buffer.from('pong'), { correlationId: '1' });
    await until(() => replies.bodies()[0] === 'pong', 'the reply');
  });
}));

check('consumer priorities and exclusive consumers', confirmed(async (channel) => {
  const queue = await queueOf(channel);
  await channel.prefetch(10);
  const low = await inbox(channel, queue);
  const high = await inbox(channel, queue, { priority: 5 });
  await send(channel, queue, 'x');
  await until(() => high.items.length === 1, 'the delivery');
  assert.equal(low.items.length, 0);
  const other = await queueOf(channel);
  await inbox(channel, other, { exclusive: true });
  await assert.rejects(inbox(channel, other), /ACCESS_REFUSED/);
}));

check('small frames as old clients ask for', async () => {
  await withChannel(async (channel) => {
    const queue = await queueOf(channel);
    const data = Buffer.alloc(100_000, 'x');
    channel.sendToQueue(queue, data);
    await channel.waitForConfirms();
    assert.ok((await get(channel, queue, { noAck: true })).content.equals(data));
  }, { confirm: true, frameMax: 4096 });
});

check('many channels', plain(async (_, connection) => {
  const channels = await Promise.all(Array.from({ length: 200 }, () => connection.createChannel()));
  await Promise.all(channels.map((channel) => queueOf(channel)));
  await Promise.all(channels.map((channel) => channel.close()));
}));

check('heartbeats keep an idle connection', () => withChannel(async (channel) => {
  await pause(3500);
  await queueOf(channel);
}, { heartbeat: 1 }));

check('channel error says why and leaves the connection', plain(async (channel, connection) => {
  const failed = once(channel, 'error');
  channel.publish(fresh('nope'), 'k', Buffer.from('x'));
  const [error] = await within(failed, 'the error');
  assert.equal(error.code, 404);
  await (await connection.createChannel()).assertQueue('', { exclusive: true });
}));

check('wrong password is refused with 403', async () => {
  await assert.rejects(amqp.connect({ ...options, password: 'wrong' }), /403 \(ACCESS[-_]REFUSED\)/);
});

check('restart closes with 320 and keeps what is durable', async () => {
  const queue = fresh();
  const connection = quiet(await amqp.connect(options));
  const channel = quiet(await connection.createConfirmChannel());
  await channel.assertQueue(queue, { durable: true });
  for (let i = 0; i < 100; i += 1) channel.sendToQueue(queue, Buffer.from(String(i)), { persistent: true });
  await channel.waitForConfirms();
  const closed = once(connection, 'close');
  await control('restart');
  const [reason] = await within(closed, 'close');
  assert.match(String(reason), /320|CONNECTION_FORCED/);
  await withChannel(async (again) => {
    for (let i = 0; i < 100; i += 1) {
      assert.equal((await get(again, queue, { noAck: true })).content.toString(), String(i));
    }
    await again.deleteQueue(queue);
  });
});

check('kill -9 keeps what was confirmed', async () => {
  const queue = fresh();
  const connection = quiet(await amqp.connect(options));
  const channel = quiet(await connection.createConfirmChannel());
  await channel.assertQueue(queue, { durable: true });
  for (let i = 0; i < 1000; i += 1) channel.sendToQueue(queue, Buffer.from(String(i)), { persistent: true });
  await channel.waitForConfirms();
  await control('kill');
  await withChannel(async (again) => {
    assert.equal((await again.checkQueue(queue)).messageCount, 1000);
    await again.deleteQueue(queue);
  });
});

run();
