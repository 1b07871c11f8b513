import com.rabbitmq.client.*;
import java.io.*;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicInteger;

/** The Java client, as Spring and everything else on the JVM uses it. */
public final class JavaSuite {
    private static final String HOST = System.getenv().getOrDefault("BROKER_HOST", "127.0.0.1");
    private static final int PORT = Integer.parseInt(System.getenv().getOrDefault("BROKER_PORT", "5672"));
    private static final int SECONDS = 20;
    private static final AtomicInteger NUMBERS = new AtomicInteger();
    private static int failed;

    @FunctionalInterface
    private interface Body {
        void run(Connection connection, Channel channel) throws Exception;
    }

    @FunctionalInterface
    private interface Condition {
        boolean holds() throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        delivery();
        routing();
        queues();
        survival();
        System.exit(failed == 0 ? 0 : 1);
    }

    // --- how a check is run ---

    private static ConnectionFactory factory() {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost(HOST);
        factory.setPort(PORT);
        factory.setRequestedHeartbeat(0);
        factory.setAutomaticRecoveryEnabled(false);
        return factory;
    }

    private static void check(String name, Body body) {
        Connection connection = null;
        try {
            connection = factory().newConnection();
            body.run(connection, connection.createChannel());
            System.out.println("ok " + name);
        } catch (Throwable problem) {
            failed++;
            int line = Arrays.stream(problem.getStackTrace()).filter(f -> f.getClassName().startsWith("JavaSuite"))
                    .mapToInt(StackTraceElement::getLineNumber).findFirst().orElse(0);
            Throwable cause = problem.getCause() == null ? problem : problem.getCause();
            System.out.println("not ok " + name + ": line " + line + ": " + cause.toString().replaceAll("\\s+", " "));
        }
        if (connection != null) {
            connection.abort(1000); // some checks take their connection down on purpose
        }
        System.out.flush();
    }

    private static String fresh(String prefix) {
        return prefix + "-java-" + NUMBERS.incrementAndGet();
    }

    private static void same(Object got, Object wanted) {
        if (!Objects.deepEquals(got, wanted)) {
            throw new AssertionError("got " + got + ", wanted " + wanted);
        }
    }

    private static void until(String what, Condition condition) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(SECONDS);
        while (!condition.holds()) {
            if (System.nanoTime() > end) {
                throw new AssertionError(what + " did not come about");
            }
            Thread.sleep(10);
        }
    }

    private static void control(String word) throws IOException {
        String[] parts = System.getenv("BROKER_CONTROL").split(":");
        try (Socket socket = new Socket(parts[0], Integer.parseInt(parts[1]))) {
            socket.getOutputStream().write((word + "\n").getBytes(StandardCharsets.UTF_8));
            String answer = new BufferedReader(new InputStreamReader(socket.getInputStream())).readLine();
            same(answer, "ok");
        }
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] body) {
        return new String(body, StandardCharsets.UTF_8);
    }

    private static String queue(Channel channel, Object... arguments) throws IOException {
        return channel.queueDeclare("", false, true, false, map(arguments)).getQueue();
    }

    private static Map<String, Object> map(Object... pairs) {
        Map<String, Object> map = new HashMap<>();
        for (int i = 0; i < pairs.length; i += 2) {
            map.put((String) pairs[i], pairs[i + 1]);
        }
        return map;
    }

    private static void publish(Channel channel, String queue, String body) throws Exception {
        channel.basicPublish("", queue, MessageProperties.PERSISTENT_BASIC, bytes(body));
    }

    private static GetResponse get(Channel channel, String queue, boolean autoAck) throws Exception {
        GetResponse[] found = new GetResponse[1];
        until("a message in " + queue, () -> (found[0] = channel.basicGet(queue, autoAck)) != null);
        return found[0];
    }

    private static int closeCode(ShutdownSignalException signal) {
        Object reason = signal.getReason();
        return reason instanceof AMQP.Channel.Close
                ? ((AMQP.Channel.Close) reason).getReplyCode() : ((AMQP.Connection.Close) reason).getReplyCode();
    }

    private static void refused(int code, Callable<?> action) throws Exception {
        try {
            action.call();
        } catch (IOException error) {
            same(closeCode((ShutdownSignalException) error.getCause()), code);
            return;
        }
        throw new AssertionError("not refused");
    }

    /** Keeps what it receives, and whether it was cancelled. */
    private static final class Inbox extends DefaultConsumer {
        final BlockingQueue<String> bodies = new LinkedBlockingQueue<>();
        final List<Long> tags = Collections.synchronizedList(new ArrayList<>());
        final CountDownLatch cancelled = new CountDownLatch(1);

        Inbox(Channel channel) {
            super(channel);
        }

        @Override
        public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body) {
            tags.add(envelope.getDeliveryTag());
            bodies.add(text(body));
        }

        @Override
        public void handleCancel(String tag) {
            cancelled.countDown();
        }

        String next() throws Exception {
            String body = bodies.poll(SECONDS, TimeUnit.SECONDS);
            if (body == null) {
                throw new AssertionError("no delivery");
            }
            return body;
        }
    }

    // --- the checks ---

    private static void delivery() {
        check("confirmed publish and manual ack", (connection, channel) -> {
            channel.confirmSelect();
            String queue = queue(channel);
            publish(channel, queue, "hello");
            channel.waitForConfirmsOrDie(SECONDS * 1000);
            Inbox inbox = new Inbox(channel);
            channel.basicConsume(queue, false, inbox);
            same(inbox.next(), "hello");
            channel.basicAck(inbox.tags.get(0), false);
            same(channel.messageCount(queue), 0L);
        });
        check("asynchronous confirms cover every publish", (connection, channel) -> {
            ConcurrentSkipListSet<Long> open = new ConcurrentSkipListSet<>();
            channel.addConfirmListener(new ConfirmListener() {
                @Override
                public void handleAck(long tag, boolean multiple) {
                    if (multiple) {
                        open.headSet(tag, true).clear();
                    } else {
                        open.remove(tag);
                    }
                }

                @Override
                public void handleNack(long tag, boolean multiple) { }
            });
            channel.confirmSelect();
            String queue = queue(channel);
            for (int i = 0; i < 3000; i++) {
                open.add(channel.getNextPublishSeqNo());
                publish(channel, queue, "" + i);
            }
            until("all confirms", open::isEmpty);
            same(channel.messageCount(queue), 3000L);
        });
        check("nack with requeue, reject into the dead-letter queue", (connection, channel) -> {
            String dead = queue(channel);
            String queue = queue(channel, "x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead);
            publish(channel, queue, "x");
            channel.basicNack(get(channel, queue, false).getEnvelope().getDeliveryTag(), false, true);
            GetResponse again = get(channel, queue, false);
            same(again.getEnvelope().isRedeliver(), true);
            channel.basicReject(again.getEnvelope().getDeliveryTag(), false);
            Map<?, ?> death = (Map<?, ?>) ((List<?>) get(channel, dead, true).getProps().getHeaders().get("x-death")).get(0);
            same(death.get("reason").toString(), "rejected");
            same(death.get("count"), 1L);
            same(death.get("time") instanceof Date, true);
        });
        check("prefetch per consumer and shared", (connection, channel) -> {
            for (boolean shared : new boolean[] {false, true}) {
                Channel own = connection.createChannel();
                String queue = queue(own);
                own.basicQos(0, 2, shared);
                Inbox one = new Inbox(own);
                Inbox two = new Inbox(own);
                own.basicConsume(queue, false, one);
                own.basicConsume(queue, false, two);
                for (int i = 0; i < 10; i++) {
                    publish(channel, queue, "" + i);
                }
                int wanted = shared ? 2 : 4;
                until("deliveries", () -> one.tags.size() + two.tags.size() == wanted);
                Thread.sleep(200);
                same(one.tags.size() + two.tags.size(), wanted);
                own.close();
            }
        });
        check("consumer priority, exclusive consumer, cancel notification", (connection, channel) -> {
            String queue = fresh("q");
            channel.queueDeclare(queue, false, false, false, null);
            Inbox low = new Inbox(channel);
            Inbox high = new Inbox(channel);
            channel.basicConsume(queue, true, low);
            channel.basicConsume(queue, true, map("x-priority", 10), high);
            publish(channel, queue, "x");
            same(high.next(), "x");
            refused(403, () -> connection.createChannel().basicConsume(queue, true, "", false, true, null, new Inbox(channel)));
            connection.createChannel().queueDelete(queue);
            same(low.cancelled.await(SECONDS, TimeUnit.SECONDS), true);
            same(high.cancelled.await(SECONDS, TimeUnit.SECONDS), true);
        });
        check("mandatory message without a queue is returned before its ack", (connection, channel) -> {
            List<String> order = Collections.synchronizedList(new ArrayList<>());
            channel.addReturnListener((code, text, exchange, key, properties, body) -> order.add("return " + code + " " + text));
            channel.addConfirmListener((tag, multiple) -> order.add("ack"), (tag, multiple) -> order.add("nack"));
            channel.confirmSelect();
            channel.basicPublish("", fresh("nowhere"), true, null, bytes("x"));
            until("both", () -> order.size() == 2);
            same(order, Arrays.asList("return 312 NO_ROUTE", "ack"));
        });
        check("transactions", (connection, channel) -> {
            String queue = queue(connection.createChannel());
            channel.txSelect();
            publish(channel, queue, "dropped");
            channel.txRollback();
            publish(channel, queue, "kept");
            same(channel.messageCount(queue), 0L);
            channel.txCommit();
            same(text(get(channel, queue, true).getBody()), "kept");
            same(channel.messageCount(queue), 0L);
        });
        check("recover", (connection, channel) -> {
            String queue = queue(channel);
            publish(channel, queue, "x");
            get(channel, queue, false);
            channel.basicRecover(true);
            same(get(channel, queue, true).getEnvelope().isRedeliver(), true);
        });
        check("direct reply-to with RpcClient's pattern", (connection, channel) -> {
            String requests = queue(channel);
            Channel client = connection.createChannel();
            Inbox replies = new Inbox(client);
            client.basicConsume("amq.rabbitmq.reply-to", true, replies);
            client.basicPublish("", requests, new AMQP.BasicProperties.Builder().replyTo("amq.rabbitmq.reply-to").build(), bytes("ping"));
            GetResponse request = get(channel, requests, true);
            channel.basicPublish("", request.getProps().getReplyTo(), null, bytes("pong"));
            same(replies.next(), "pong");
        });
        check("big messages", (connection, channel) -> {
            String queue = queue(channel);
            for (int size : new int[] {1 << 20, 20 << 20}) {
                byte[] data = new byte[size];
                new Random(size).nextBytes(data);
                channel.basicPublish("", queue, null, data);
                same(Arrays.equals(get(channel, queue, true).getBody(), data), true);
            }
        });
        check("headers keep their Java types", (connection, channel) -> {
            String queue = queue(channel);
            Date date = new Date(1700000000000L);
            Map<String, Object> headers = map("byte", (byte) 5, "short", (short) 5, "int", 5, "long", 5L, "float", 1.5f, "double", 2.5,
                    "bool", true, "date", date, "decimal", new java.math.BigDecimal("3.14"), "null", null,
                    "list", Arrays.asList(1, null, true), "table", map("k", 1L));
            headers.put("bytes", new byte[] {0, (byte) 255});
            channel.basicPublish("", queue, new AMQP.BasicProperties.Builder().headers(headers).build(), new byte[0]);
            Map<String, Object> got = get(channel, queue, true).getProps().getHeaders();
            for (Map.Entry<String, Object> entry : headers.entrySet()) {
                same(got.get(entry.getKey()), entry.getValue());
            }
            same(got.size(), headers.size());
        });
    }

    private static void routing() {
        check("exchanges of the four types", (connection, channel) -> {
            Object[][] cases = {{"direct", "k", null, "k", null}, {"fanout", "", null, "any", null}, {"topic", "a.#", null, "a.b", null},
                {"headers", "", map("x-match", "any", "h", 1), "", map("h", 1)}};
            for (Object[] row : cases) {
                String exchange = fresh("x");
                channel.exchangeDeclare(exchange, (String) row[0], false, true, null);
                String queue = queue(channel);
                @SuppressWarnings("unchecked") Map<String, Object> arguments = (Map<String, Object>) row[2];
                @SuppressWarnings("unchecked") Map<String, Object> headers = (Map<String, Object>) row[4];
                channel.queueBind(queue, exchange, (String) row[1], arguments);
                channel.basicPublish(exchange, (String) row[3], new AMQP.BasicProperties.Builder().headers(headers).build(), bytes("x"));
                same(text(get(channel, queue, true).getBody()), "x");
            }
        });
        check("exchange to exchange, alternate exchange, internal exchange", (connection, channel) -> {
            String inner = fresh("x");
            String outer = fresh("x");
            channel.exchangeDeclare(inner, "fanout", false, false, true, null);
            channel.exchangeDeclare(outer, "direct", false, false, map("alternate-exchange", inner));
            channel.exchangeBind(inner, outer, "k");
            String queue = queue(channel);
            channel.queueBind(queue, inner, "");
            channel.basicPublish(outer, "k", null, bytes("bound"));
            channel.basicPublish(outer, "other", null, bytes("alternate"));
            same(text(get(channel, queue, true).getBody()), "bound");
            same(text(get(channel, queue, true).getBody()), "alternate");
            channel.exchangeUnbind(inner, outer, "k");
            channel.exchangeDelete(outer);
            channel.exchangeDelete(inner);
        });
    }

    private static void queues() {
        check("exclusive, auto-delete and server-named queues", (connection, channel) -> {
            String queue = queue(channel);
            same(queue.startsWith("amq.gen-"), true);
            try (Connection other = factory().newConnection()) {
                refused(405, () -> other.createChannel().queueDeclarePassive(queue));
            }
            String shortLived = fresh("q");
            channel.queueDeclare(shortLived, false, false, true, null);
            channel.basicCancel(channel.basicConsume(shortLived, true, new Inbox(channel)));
            refused(404, () -> connection.createChannel().queueDeclarePassive(shortLived));
        });
        check("max-length, priority, TTL and reject-publish", (connection, channel) -> {
            channel.confirmSelect();
            String shortQueue = queue(channel, "x-max-length", 1);
            publish(channel, shortQueue, "1");
            publish(channel, shortQueue, "2");
            same(text(get(channel, shortQueue, true).getBody()), "2");
            String ranked = queue(channel, "x-max-priority", 3);
            publish(channel, ranked, "low");
            channel.basicPublish("", ranked, new AMQP.BasicProperties.Builder().priority(3).build(), bytes("high"));
            same(text(get(channel, ranked, true).getBody()), "high");
            String brief = queue(channel, "x-message-ttl", 50);
            publish(channel, brief, "x");
            until("expiry", () -> channel.messageCount(brief) == 0);
            String full = queue(channel, "x-max-length", 0, "x-overflow", "reject-publish");
            channel.waitForConfirms(SECONDS * 1000);
            publish(channel, full, "x");
            same(channel.waitForConfirms(SECONDS * 1000), false);
        });
        check("no-wait declarations, bindings and deletions", (connection, channel) -> {
            String queue = fresh("q");
            channel.queueDeclareNoWait(queue, false, false, false, null);
            channel.queueBindNoWait(queue, "amq.direct", queue, null);
            channel.basicPublish("amq.direct", queue, null, bytes("x"));
            same(text(get(channel, queue, true).getBody()), "x");
            channel.queueDeleteNoWait(queue, false, false);
            refused(404, () -> channel.queueDeclarePassive(queue));
        });
        check("many channels from many threads", (connection, channel) -> {
            ExecutorService pool = Executors.newFixedThreadPool(16);
            String queue = queue(channel);
            List<Future<?>> futures = new ArrayList<>();
            for (int i = 0; i < 200; i++) {
                futures.add(pool.submit(() -> {
                    Channel own = connection.createChannel();
                    own.confirmSelect();
                    publish(own, queue, "x");
                    own.waitForConfirmsOrDie(SECONDS * 1000);
                    own.close();
                    return null;
                }));
            }
            for (Future<?> future : futures) {
                future.get(SECONDS, TimeUnit.SECONDS);
            }
            pool.shutdown();
            same(channel.messageCount(queue), 200L);
        });
        check("wrong password and unknown vhost say why", (connection, channel) -> {
            ConnectionFactory wrong = factory();
            wrong.setPassword("wrong");
            try {
                wrong.newConnection();
                throw new AssertionError("let in");
            } catch (AuthenticationFailureException refusal) {
                same(refusal.getMessage().startsWith("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN"), true);
            }
            ConnectionFactory nowhere = factory();
            nowhere.setVirtualHost("nowhere");
            refused(530, nowhere::newConnection);
        });
        check("server properties announce capabilities", (connection, channel) -> {
            Map<?, ?> capabilities = (Map<?, ?>) connection.getServerProperties().get("capabilities");
            for (String name : new String[] {"publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked",
                "exchange_exchange_bindings", "consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to"}) {
                same(capabilities.get(name), true);
            }
        });
    }

    private static void survival() {
        check("heartbeats keep an idle connection", (connection, channel) -> {
            ConnectionFactory beating = factory();
            beating.setRequestedHeartbeat(1);
            try (Connection own = beating.newConnection()) {
                Thread.sleep(3500);
                same(own.isOpen(), true);
                queue(own.createChannel());
            }
        });
        check("kill -9 keeps what was confirmed", (connection, channel) -> {
            channel.confirmSelect();
            String queue = fresh("durable");
            channel.queueDeclare(queue, true, false, false, null);
            for (int i = 0; i < 500; i++) {
                publish(channel, queue, "" + i);
            }
            channel.waitForConfirmsOrDie(SECONDS * 1000);
            control("kill");
            try (Connection again = factory().newConnection()) {
                Channel own = again.createChannel();
                for (int i = 0; i < 500; i++) {
                    same(text(get(own, queue, true).getBody()), "" + i);
                }
                own.queueDelete(queue);
            }
        });
        check("automatic recovery restores topology and consumers after a restart", (connection, channel) -> {
            ConnectionFactory recovering = factory();
            recovering.setAutomaticRecoveryEnabled(true);
            recovering.setNetworkRecoveryInterval(300);
            Connection own = recovering.newConnection();
            Channel consuming = own.createChannel();
            String exchange = fresh("x");
            consuming.exchangeDeclare(exchange, "direct", false);
            String queue = queue(consuming);
            consuming.queueBind(queue, exchange, "k");
            Inbox inbox = new Inbox(consuming);
            consuming.basicConsume(queue, true, inbox);
            CountDownLatch recovered = new CountDownLatch(1);
            ((Recoverable) own).addRecoveryListener(new RecoveryListener() {
                @Override
                public void handleRecovery(Recoverable recoverable) {
                    recovered.countDown();
                }

                @Override
                public void handleRecoveryStarted(Recoverable recoverable) { }
            });
            control("restart");
            same(recovered.await(60, TimeUnit.SECONDS), true);
            consuming.basicPublish(exchange, "k", null, bytes("after"));
            same(inbox.next(), "after");
            own.close();
        });
    }
}
