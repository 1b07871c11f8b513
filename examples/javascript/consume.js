// Receives orders and acknowledges each after its work is done: node consume.js [HOW_MANY]
'use strict';
const amqp = require('amqplib');

const url = process.env.AMQP_URL || 'amqp://guest:guest@127.0.0.1:5672/%2f';
const howMany = process.argv[2] ? Number(process.argv[2]) : Infinity;

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertQueue('orders', { durable: true });
  // At most ten messages are with us unacknowledged; the others wait for whoever is free.
  await channel.prefetch(10);

  let done = 0;
  await channel.consume('orders', async (order) => {
    if (order === null) throw new Error('the queue is gone');
    if (done >= howMany) return; // not acknowledged, so it goes back to the queue
    console.log('received', order.content.toString());
    // Were we to die before this line, the order would go to another consumer.
    channel.ack(order);
    done += 1;
    if (done === howMany) await connection.close();
  });
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
