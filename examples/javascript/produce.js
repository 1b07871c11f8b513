// Sends ten orders to a durable queue and waits until the broker has each on disk: node produce.js
'use strict';
const amqp = require('amqplib');

const url = process.env.AMQP_URL || 'amqp://guest:guest@127.0.0.1:5672/%2f';

async function main() {
  const connection = await amqp.connect(url);
  // On a confirm channel the broker confirms each message; without that a publish is a hope.
  const channel = await connection.createConfirmChannel();
  // Declaring a queue that is there already changes nothing, so producer and consumer both do it.
  await channel.assertQueue('orders', { durable: true });

  for (let number = 1; number <= 10; number += 1) {
    const body = `order ${number}`;
    channel.sendToQueue('orders', Buffer.from(body), {
      persistent: true, // keep the message over a restart
      contentType: 'text/plain',
    });
    await channel.waitForConfirms();
    console.log('sent', body);
  }
  await connection.close();
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
