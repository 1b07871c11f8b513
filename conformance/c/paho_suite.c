/* paho, the C client as Debian ships it (synchronous API), at 3.1, 3.1.1 and 5.0. */
#include <MQTTClient.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE 20000
#define MUST(condition) do { if (!(condition)) { snprintf(why, sizeof why, "line %d: %s", __LINE__, #condition); return 0; } } while (0)

static char why[400], address[200];
static int numbers, failures;

static const char *fresh(const char *prefix) {
    static char names[16][64];
    char *name = names[++numbers % 16];
    snprintf(name, sizeof names[0], "%s%dc%d", prefix, (int)getpid(), numbers);
    return name;
}

typedef struct {
    int clean, expiry, receive_maximum, present;
    const char *will_topic, *will_payload, *user, *password;
    int will_qos, will_retained, keep_alive;
} Options;

/* Connects; the reason or return code of the server comes back, 0 is success. */
static int try_connect(MQTTClient *client, int version, const char *id, Options *options) {
    MQTTClient_createOptions create = MQTTClient_createOptions_initializer;
    create.MQTTVersion = version;
    if (MQTTClient_createWithOptions(client, address, id, MQTTCLIENT_PERSISTENCE_NONE, NULL, &create)) return -1000;
    MQTTClient_connectOptions connect = MQTTClient_connectOptions_initializer;
    MQTTClient_connectOptions connect5 = MQTTClient_connectOptions_initializer5;
    MQTTClient_willOptions will = MQTTClient_willOptions_initializer;
    MQTTProperties properties = MQTTProperties_initializer;
    if (version == MQTTVERSION_5) {
        connect = connect5;
        connect.cleanstart = options->clean;
        MQTTProperty expiry = {.identifier = MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL};
        expiry.value.integer4 = (unsigned)options->expiry;
        MQTTProperties_add(&properties, &expiry);
        if (options->receive_maximum) {
            MQTTProperty most = {.identifier = MQTTPROPERTY_CODE_RECEIVE_MAXIMUM};
            most.value.integer2 = (unsigned short)options->receive_maximum;
            MQTTProperties_add(&properties, &most);
        }
    } else {
        connect.cleansession = options->clean;
    }
    connect.MQTTVersion = version;
    connect.keepAliveInterval = options->keep_alive ? options->keep_alive : 60;
    connect.connectTimeout = 20;
    connect.username = options->user;
    connect.password = options->password;
    if (options->will_topic) {
        will.topicName = options->will_topic;
        will.message = options->will_payload;
        will.qos = options->will_qos;
        will.retained = options->will_retained;
        connect.will = &will;
    }
    int code;
    if (version == MQTTVERSION_5) {
        MQTTResponse response = MQTTClient_connect5(*client, &connect, &properties, NULL);
        code = response.reasonCode;
        MQTTResponse_free(response);
    } else {
        code = MQTTClient_connect(*client, &connect);
    }
    options->present = connect.returned.sessionPresent; /* this version of the library fills it in for 3.1.1 alone */
    MQTTProperties_free(&properties);
    return code;
}

static MQTTClient connected(int version, const char *id, Options *options) {
    Options plain = {.clean = 1};
    MQTTClient client;
    int code = try_connect(&client, version, id ? id : fresh("c"), options ? options : &plain);
    if (code) {
        printf("# CONNECT was answered %d\n", code);
        return NULL;
    }
    return client;
}

static void leave(int version, MQTTClient *client) {
    if (version == MQTTVERSION_5) MQTTClient_disconnect5(*client, 1000, MQTTREASONCODE_SUCCESS, NULL);
    else MQTTClient_disconnect(*client, 1000);
    MQTTClient_destroy(client);
}

static int subscribe(int version, MQTTClient client, const char *topic, int qos) {
    if (version != MQTTVERSION_5) return MQTTClient_subscribe(client, topic, qos);
    MQTTResponse response = MQTTClient_subscribe5(client, topic, qos, NULL, NULL);
    int code = response.reasonCode;
    MQTTResponse_free(response);
    return code == qos ? 0 : code + 1000;
}

static int unsubscribe(int version, MQTTClient client, const char *topic) {
    if (version != MQTTVERSION_5) return MQTTClient_unsubscribe(client, topic);
    MQTTResponse response = MQTTClient_unsubscribe5(client, topic, NULL);
    int code = response.reasonCode;
    MQTTResponse_free(response);
    return code;
}

/* Publishes and waits for the whole handshake. */
static int publish(int version, MQTTClient client, const char *topic, const void *payload, int size, int qos, int retained, MQTTProperties *properties) {
    MQTTClient_message message = MQTTClient_message_initializer;
    MQTTClient_deliveryToken token;
    message.payload = (void *)payload;
    message.payloadlen = size;
    message.qos = qos;
    message.retained = retained;
    if (version == MQTTVERSION_5) {
        if (properties) message.properties = *properties;
        MQTTResponse response = MQTTClient_publishMessage5(client, topic, &message, &token);
        int code = response.reasonCode;
        MQTTResponse_free(response);
        if (code >= 0x80 || code < 0) return code;
    } else {
        int code = MQTTClient_publishMessage(client, topic, &message, &token);
        if (code) return code;
    }
    return MQTTClient_waitForCompletion(client, token, DEADLINE);
}

static int say(int version, MQTTClient client, const char *topic, const char *text, int qos, int retained) {
    return publish(version, client, topic, text, (int)strlen(text), qos, retained, NULL);
}

typedef struct { char topic[300], text[300]; int qos, retained, size; char *payload, reply[100], correlation[100], pairs[200]; } Got;

/* The next message, or 0 when none came in time. */
static int take(MQTTClient client, Got *got, unsigned long wait) {
    char *topic = NULL;
    int length = 0;
    MQTTClient_message *message = NULL;
    memset(got, 0, sizeof *got);
    int code = MQTTClient_receive(client, &topic, &length, &message, wait);
    if ((code != MQTTCLIENT_SUCCESS && code != MQTTCLIENT_TOPICNAME_TRUNCATED) || !message) return 0;
    snprintf(got->topic, sizeof got->topic, "%s", topic);
    got->qos = message->qos;
    got->retained = message->retained;
    got->size = message->payloadlen;
    got->payload = malloc((size_t)message->payloadlen + 1);
    memcpy(got->payload, message->payload, (size_t)message->payloadlen);
    got->payload[message->payloadlen] = 0;
    snprintf(got->text, sizeof got->text, "%s", got->payload);
    for (int i = 0; i < message->properties.count; i++) {
        MQTTProperty *one = &message->properties.array[i];
        if (one->identifier == MQTTPROPERTY_CODE_RESPONSE_TOPIC)
            snprintf(got->reply, sizeof got->reply, "%.*s", one->value.data.len, one->value.data.data);
        if (one->identifier == MQTTPROPERTY_CODE_CORRELATION_DATA)
            snprintf(got->correlation, sizeof got->correlation, "%.*s", one->value.data.len, one->value.data.data);
        if (one->identifier == MQTTPROPERTY_CODE_USER_PROPERTY)
            snprintf(got->pairs + strlen(got->pairs), sizeof got->pairs - strlen(got->pairs), "%.*s=%.*s,", one->value.data.len,
                     one->value.data.data, one->value.value.len, one->value.value.data);
    }
    MQTTClient_freeMessage(&message);
    MQTTClient_free(topic);
    return 1;
}

static int heard(MQTTClient client, const char *text) {
    Got got;
    if (!take(client, &got, DEADLINE)) return 0;
    int equal = !strcmp(got.text, text);
    if (!equal) printf("# got '%s', wanted '%s'\n", got.text, text);
    free(got.payload);
    return equal;
}

/* Nothing more comes: a message to itself is the next. */
static int nothing(int version, MQTTClient client) {
    const char *mark = fresh("mark");
    return !subscribe(version, client, mark, 1) && !say(version, client, mark, mark, 1, 0) && heard(client, mark);
}

static int every_qos(int version) {
    MQTTClient one = connected(version, NULL, NULL), two = connected(version, NULL, NULL);
    MUST(one && two);
    for (int granted = 0; granted < 3; granted++) {
        const char *topic = fresh("t");
        MUST(!subscribe(version, two, topic, granted));
        for (int sent = 0; sent < 3; sent++) {
            Got got;
            MUST(!say(version, one, topic, "hello", sent, 0));
            MUST(take(two, &got, DEADLINE));
            MUST(!strcmp(got.text, "hello") && !strcmp(got.topic, topic) && !got.retained);
            MUST(got.qos == (sent < granted ? sent : granted));
            free(got.payload);
        }
    }
    leave(version, &one), leave(version, &two);
    return 1;
}

static int retained(int version) {
    char one[100], all[100];
    const char *root = fresh("r");
    snprintf(one, sizeof one, "%s/a/b", root), snprintf(all, sizeof all, "%s/#", root);
    MQTTClient client = connected(version, NULL, NULL), late = connected(version, NULL, NULL);
    MUST(client && late);
    MUST(!say(version, client, one, "old", 1, 1) && !say(version, client, one, "kept", 2, 1));
    MUST(!subscribe(version, late, all, 2));
    Got got;
    MUST(take(late, &got, DEADLINE));
    MUST(!strcmp(got.text, "kept") && got.retained && got.qos == 2);
    free(got.payload);
    MUST(!say(version, client, one, "", 1, 1));
    MUST(heard(late, ""));
    MUST(!unsubscribe(version, late, all) && !subscribe(version, late, all, 2));
    MUST(nothing(version, late));
    leave(version, &client), leave(version, &late);
    return 1;
}

/* A process that connects with a will and ends without a word. */
static int vanish(int version, const char *topic) {
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        Options options = {.clean = 1, .will_topic = topic, .will_payload = "gone", .will_qos = 1};
        _exit(connected(version, NULL, &options) ? 0 : 1);
    }
    int status = 1;
    return waitpid(child, &status, 0) == child && !status;
}

static int will(int version) {
    const char *topic = fresh("w");
    MQTTClient watcher = connected(version, NULL, NULL);
    MUST(watcher && !subscribe(version, watcher, topic, 1) && vanish(version, topic) && heard(watcher, "gone"));
    Options options = {.clean = 1, .will_topic = topic, .will_payload = "polite", .will_qos = 1};
    MQTTClient polite = connected(version, NULL, &options);
    MUST(polite);
    leave(version, &polite);
    MUST(nothing(version, watcher));
    leave(version, &watcher);
    return 1;
}

static int session(int version) {
    const char *topic = fresh("s"), *id = fresh("k");
    Options kept = {.clean = 0, .expiry = 600};
    MQTTClient client = connected(version, id, &kept), publisher = connected(version, NULL, NULL);
    MUST(client && publisher && !kept.present && !subscribe(version, client, topic, 2));
    leave(version, &client);
    for (int n = 0; n < 20; n++) {
        char text[20];
        snprintf(text, sizeof text, "%d", n);
        MUST(!say(version, publisher, topic, text, 1, 0));
    }
    client = connected(version, id, &kept);
    MUST(client && (kept.present || version != MQTTVERSION_3_1_1));
    for (int n = 0; n < 20; n++) {
        char text[20];
        snprintf(text, sizeof text, "%d", n);
        MUST(heard(client, text));
    }
    MUST(nothing(version, client));
    leave(version, &client);
    Options clean = {.clean = 1};
    client = connected(version, id, &clean);
    MUST(client && !clean.present);
    leave(version, &client), leave(version, &publisher);
    return 1;
}

static int shared(int version) {
    char filter[100];
    const char *topic = fresh("t");
    snprintf(filter, sizeof filter, "$share/crew/%s", topic);
    MQTTClient one = connected(version, NULL, NULL), two = connected(version, NULL, NULL), publisher = connected(version, NULL, NULL);
    MUST(one && two && publisher && !subscribe(version, one, filter, 1) && !subscribe(version, two, filter, 1));
    for (int n = 0; n < 10; n++) MUST(!say(version, publisher, topic, "job", 1, 0));
    int first = 0, second = 0;
    Got got;
    for (int tries = 0; tries < 100 && first + second < 10; tries++) {
        if (take(one, &got, 100)) first++, free(got.payload);
        if (take(two, &got, 100)) second++, free(got.payload);
    }
    MUST(first + second == 10 && first >= 3 && second >= 3);
    leave(version, &one), leave(version, &two), leave(version, &publisher);
    return 1;
}

static int passwords(int version) {
    Options right = {.clean = 1, .user = "guest", .password = "guest"}, wrong = {.clean = 1, .user = "guest", .password = "wrong"};
    MQTTClient client;
    MUST(!try_connect(&client, version, fresh("c"), &right));
    leave(version, &client);
    int code = try_connect(&client, version, fresh("c"), &wrong);
    MUST(version == MQTTVERSION_5 ? code == 0x86 || code == 0x87 : code == 4 || code == 5);
    MQTTClient_destroy(&client);
    return 1;
}

static int big(int version) {
    const char *topic = fresh("t");
    int size = 4 << 20;
    char *payload = malloc((size_t)size);
    for (int i = 0; i < size; i++) payload[i] = (char)(i * 7);
    MQTTClient client = connected(version, NULL, NULL);
    MUST(client && !subscribe(version, client, topic, 2));
    for (int qos = 0; qos < 3; qos++) {
        Got got;
        MUST(!publish(version, client, topic, payload, size, qos, 0, NULL));
        MUST(take(client, &got, DEADLINE) && got.size == size && !memcmp(got.payload, payload, (size_t)size));
        free(got.payload);
    }
    free(payload);
    leave(version, &client);
    return 1;
}

static int utf8(int version) {
    char topic[100], all[100];
    const char *root = fresh("u");
    snprintf(topic, sizeof topic, "%s/K\xc3\xbc" "che/\xe6\xb8\xa9/a.b", root), snprintf(all, sizeof all, "%s/#", root);
    MQTTClient client = connected(version, NULL, NULL);
    Got got;
    MUST(client && !subscribe(version, client, all, 0) && !say(version, client, topic, "x", 1, 0));
    MUST(take(client, &got, DEADLINE) && !strcmp(got.topic, topic));
    free(got.payload);
    leave(version, &client);
    return 1;
}

static int keep_alive(int version) {
    const char *topic = fresh("t");
    Options often = {.clean = 1, .keep_alive = 2};
    MQTTClient client = connected(version, NULL, &often);
    Got got;
    MUST(client && !subscribe(version, client, topic, 1));
    for (int i = 0; i < 14; i++) MUST(!take(client, &got, 500));
    MUST(MQTTClient_isConnected(client) && !say(version, client, topic, "still here", 1, 0) && heard(client, "still here"));
    leave(version, &client);
    return 1;
}

static int request_and_response(int version) {
    char replies[64], questions[64];
    snprintf(replies, sizeof replies, "%s", fresh("a")), snprintf(questions, sizeof questions, "%s", fresh("q"));
    MQTTClient asker = connected(version, NULL, NULL), answerer = connected(version, NULL, NULL);
    MUST(asker && answerer && !subscribe(version, asker, replies, 1) && !subscribe(version, answerer, questions, 1));
    MQTTProperties properties = MQTTProperties_initializer;
    MQTTProperty one = {.identifier = MQTTPROPERTY_CODE_RESPONSE_TOPIC};
    one.value.data.data = replies, one.value.data.len = (int)strlen(replies);
    MQTTProperties_add(&properties, &one);
    MQTTProperty two = {.identifier = MQTTPROPERTY_CODE_CORRELATION_DATA};
    two.value.data.data = "c-77", two.value.data.len = 4;
    MQTTProperties_add(&properties, &two);
    const char *names[] = {"z", "a", "z"};
    for (int i = 0; i < 3; i++) {
        MQTTProperty pair = {.identifier = MQTTPROPERTY_CODE_USER_PROPERTY};
        pair.value.data.data = (char *)names[i], pair.value.data.len = 1;
        pair.value.value.data = "v", pair.value.value.len = 1;
        MQTTProperties_add(&properties, &pair);
    }
    MUST(!publish(version, asker, questions, "?", 1, 1, 0, &properties));
    Got got;
    MUST(take(answerer, &got, DEADLINE));
    MUST(!strcmp(got.reply, replies) && !strcmp(got.correlation, "c-77") && !strcmp(got.pairs, "z=v,a=v,z=v,"));
    free(got.payload);
    MUST(!say(version, answerer, replies, "!", 2, 0) && heard(asker, "!"));
    MQTTProperties_free(&properties);
    leave(version, &asker), leave(version, &answerer);
    return 1;
}

static int receive_maximum(int version) {
    const char *topic = fresh("t");
    Options few = {.clean = 1, .receive_maximum = 2};
    MQTTClient client = connected(version, NULL, &few), publisher = connected(version, NULL, NULL);
    MUST(client && publisher && !subscribe(version, client, topic, 1));
    for (int n = 0; n < 50; n++) {
        char text[20];
        snprintf(text, sizeof text, "%d", n);
        MUST(!say(version, publisher, topic, text, 1, 0));
    }
    for (int n = 0; n < 50; n++) {
        char text[20];
        snprintf(text, sizeof text, "%d", n);
        MUST(heard(client, text));
    }
    leave(version, &client), leave(version, &publisher);
    return 1;
}

static void check(const char *name, int (*body)(int), int version) {
    const char *told = version == MQTTVERSION_5 ? "5" : version == MQTTVERSION_3_1_1 ? "3.1.1" : "3.1";
    int ok = body(version);
    failures += !ok;
    if (ok) printf("ok %s [%s]\n", name, told);
    else printf("not ok %s [%s]: %s\n", name, told, why);
    fflush(stdout);
}

int main(void) {
    snprintf(address, sizeof address, "tcp://%s:%s", getenv("BROKER_HOST"), getenv("BROKER_MQTT"));
    const int versions[] = {MQTTVERSION_3_1, MQTTVERSION_3_1_1, MQTTVERSION_5};
    for (int i = 0; i < 3; i++) {
        check("every QoS in, every QoS out", every_qos, versions[i]);
        check("retained set, replayed by wildcard, cleared", retained, versions[i]);
        check("a will of who vanishes and none at goodbye", will, versions[i]);
        check("a session keeps what comes", session, versions[i]);
        if (i) check("shared subscriptions", shared, versions[i]);
        check("passwords", passwords, versions[i]);
        check("four megabytes", big, versions[i]);
        check("topics in UTF-8", utf8, versions[i]);
        check("keep alive", keep_alive, versions[i]);
    }
    check("request and response with properties", request_and_response, MQTTVERSION_5);
    check("receive maximum", receive_maximum, MQTTVERSION_5);
    return failures > 0;
}
