#!/bin/bash
# rabbitmq-c, the C client, through its command-line tools.
set -u
server="amqp://guest:guest@$BROKER_HOST:$BROKER_PORT"
connection=(--url="$server")
failed=0

# check NAME COMMAND...: one line for one check; the command says why it failed on standard error.
check() {
    local name=$1 why
    shift
    if why=$("$@" 2>&1); then
        echo "ok $name"
    else
        echo "not ok $name: $(echo "$why" | tr '\n' ' ' | cut -c1-300)"
        failed=1
    fi
}

same() {
    [ "$1" = "$2" ] || { echo "got '$1', wanted '$2'" >&2; return 1; }
}

declare_and_delete() {
    same "$(timeout 20 amqp-declare-queue "${connection[@]}" --queue=c-declared --durable)" c-declared || return 1
    same "$(timeout 20 amqp-delete-queue "${connection[@]}" --queue=c-declared)" 0
}

publish_and_get() {
    timeout 20 amqp-declare-queue "${connection[@]}" --queue=c-get > /dev/null || return 1
    timeout 20 amqp-publish "${connection[@]}" --routing-key=c-get --body=hello --persistent --content-type=text/plain || return 1
    same "$(timeout 20 amqp-get "${connection[@]}" --queue=c-get)" hello || return 1
    # An empty queue is told by the exit status 2.
    timeout 20 amqp-get "${connection[@]}" --queue=c-get
    same $? 2 || return 1
    timeout 20 amqp-delete-queue "${connection[@]}" --queue=c-get
}

publish_standard_input() {
    timeout 20 amqp-declare-queue "${connection[@]}" --queue=c-lines > /dev/null || return 1
    printf 'one\ntwo\n' | timeout 20 amqp-publish "${connection[@]}" --routing-key=c-lines --line-buffered || return 1
    same "$(timeout 20 amqp-get "${connection[@]}" --queue=c-lines)" one || return 1
    same "$(timeout 20 amqp-delete-queue "${connection[@]}" --queue=c-lines)" 1
}

big_message() {
    timeout 20 amqp-declare-queue "${connection[@]}" --queue=c-big > /dev/null || return 1
    head -c 5000000 /dev/urandom > "$SCRATCH/big"
    timeout 20 amqp-publish "${connection[@]}" --routing-key=c-big < "$SCRATCH/big" || return 1
    timeout 20 amqp-get "${connection[@]}" --queue=c-big > "$SCRATCH/back" || return 1
    cmp "$SCRATCH/big" "$SCRATCH/back" || return 1
    timeout 20 amqp-delete-queue "${connection[@]}" --queue=c-big
}

consume() {
    timeout 20 amqp-declare-queue "${connection[@]}" --queue=c-consume > /dev/null || return 1
    for word in a b c; do
        timeout 20 amqp-publish "${connection[@]}" --routing-key=c-consume --body=$word || return 1
    done
    same "$(timeout 20 amqp-consume "${connection[@]}" --queue=c-consume --count=3 --prefetch-count=1 cat)" abc || return 1
    same "$(timeout 20 amqp-delete-queue "${connection[@]}" --queue=c-consume)" 0
}

consume_bound_to_exchange() {
    timeout 20 amqp-consume "${connection[@]}" --exchange=amq.topic --routing-key='c.#' --count=1 cat > "$SCRATCH/consumed" &
    local consumer=$!
    # The consumer binds a queue of its own; publishing goes on until it has received.
    while kill -0 $consumer 2> /dev/null; do
        timeout 20 amqp-publish "${connection[@]}" --exchange=amq.topic --routing-key=c.x --body=routed || return 1
    done
    wait $consumer || return 1
    same "$(cat "$SCRATCH/consumed")" routed
}

error_is_reported() {
    local message
    message=$(timeout 20 amqp-get "${connection[@]}" --queue=c-missing 2>&1)
    [[ $message == *"404"*"NOT_FOUND - no queue 'c-missing' in vhost '/'"* ]] || { echo "got '$message'" >&2; return 1; }
}

wrong_password() {
    local message
    message=$(timeout 20 amqp-publish --url="amqp://guest:wrong@$BROKER_HOST:$BROKER_PORT" --routing-key=x --body=x 2>&1)
    [[ $message == *ACCESS_REFUSED* ]] || { echo "got '$message'" >&2; return 1; }
}

with_heartbeat() {
    timeout 20 amqp-publish "${connection[@]}" --heartbeat=5 --routing-key=c-nowhere --body=x
}

check "amqp-declare-queue and amqp-delete-queue" declare_and_delete
check "amqp-publish and amqp-get" publish_and_get
check "amqp-publish of lines from standard input" publish_standard_input
check "five megabytes" big_message
check "amqp-consume with prefetch" consume
check "amqp-consume from an exchange" consume_bound_to_exchange
check "missing queue is reported with code and text" error_is_reported
check "wrong password is refused" wrong_password
check "heartbeat is negotiated" with_heartbeat
exit $failed
