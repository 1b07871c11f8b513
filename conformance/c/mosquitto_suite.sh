#!/bin/bash
# mosquitto_pub, mosquitto_sub and mosquitto_rr, at 3.1, 3.1.1 and 5.0.
set -u
failed=0
number=0
at=(-h "$BROKER_HOST" -p "$BROKER_MQTT")

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

has() {
    [[ $1 == *"$2"* ]] || { echo "got '$1', wanted '$2' in it" >&2; return 1; }
}

topic() {
    number=$((number + 1))
    t="m$$n$number"
}

pub() { timeout 30 mosquitto_pub "${at[@]}" -V "$version" "$@"; }
sub() { timeout 30 mosquitto_sub "${at[@]}" -V "$version" "$@"; }

# subscribed FILE ARGUMENTS...: a subscriber in the background that is known to listen: it reports its SUBACK with -d.
subscribed() {
    local file=$1
    shift
    : > "$file"
    timeout 40 stdbuf -oL mosquitto_sub "${at[@]}" -V "$version" -d "$@" > "$file" 2>&1 &
    listener=$!
    for _ in $(seq 400); do
        grep -q "Subscribed (mid" "$file" && return 0
        kill -0 $listener 2> /dev/null || { cat "$file" >&2; return 1; }
        sleep 0.05
    done
    echo "no SUBACK" >&2
    return 1
}

# heard FILE: waits for the subscriber in the background; what it printed besides its reports is then in $got.
heard() {
    wait $listener
    got=$(grep -v -e "^Client " -e "^Subscribed (mid" "$1")
}

each_qos() {
    local qos
    for qos in 0 1 2; do
        topic
        subscribed "$SCRATCH/each" -t "$t" -q $qos -C 3 -F '%p %q %r' || return 1
        for level in 0 1 2; do pub -t "$t" -m "m$level" -q $level || return 1; done
        heard "$SCRATCH/each"
        same "$(sort <<< "$got" | tr '\n' ,)" "m0 0 0,m1 $((qos < 1 ? qos : 1)) 0,m2 $qos 0," || return 1
    done
}

retained() {
    topic
    for n in 1 2 3; do pub -t "$t/$n" -m "kept $n" -q $((n - 1)) -r || return 1; done
    same "$(sub -t "$t/+" -q 2 -C 3 -F '%t %p %r' | sort | tr '\n' ,)" "$t/1 kept 1 1,$t/2 kept 2 1,$t/3 kept 3 1," || return 1
    for n in 1 2 3; do pub -t "$t/$n" -n -q 1 -r || return 1; done
    same "$(timeout 30 mosquitto_sub "${at[@]}" -V "$version" -t "$t/#" -E --retained-only -W 2 -F '%p')" ""
}

cleared_by_remove_retained() {
    topic
    pub -t "$t/a" -m kept -q 1 -r || return 1
    # It goes on until -W, whose exit status is 27.
    timeout 30 mosquitto_sub "${at[@]}" -V "$version" -t "$t/#" --remove-retained -W 2 > /dev/null
    same $? 27 || return 1
    same "$(timeout 30 mosquitto_sub "${at[@]}" -V "$version" -t "$t/#" --retained-only -W 1 -F '%p')" ""
}

will() {
    topic
    subscribed "$SCRATCH/will" -t "$t/will" -q 1 -C 1 -F '%p %q' || return 1
    local watcher=$listener
    : > "$SCRATCH/victim"
    stdbuf -oL mosquitto_sub "${at[@]}" -V "$version" -t "$t/other" -d --will-topic "$t/will" --will-payload gone --will-qos 1 > "$SCRATCH/victim" 2>&1 &
    local victim=$!
    until grep -q "Subscribed (mid" "$SCRATCH/victim" 2> /dev/null; do
        kill -0 $victim || return 1
        sleep 0.05
    done
    kill -9 $victim
    listener=$watcher
    heard "$SCRATCH/will"
    same "$got" "gone 1"
}

session() {
    topic
    local more=(-c)
    [ "$version" = mqttv5 ] && more=(-c -x 600)
    sub -i "$t" -t "$t/#" -q 2 "${more[@]}" -E || return 1
    for n in 1 2 3; do pub -t "$t/$n" -m "queued $n" -q $((n % 2 + 1)) || return 1; done
    same "$(sub -i "$t" -t "$t/#" -q 2 "${more[@]}" -C 3 -F '%p' | sort | tr '\n' ,)" "queued 1,queued 2,queued 3," || return 1
    pub -i "$t" -t "$t-end" -m x
}

shared() {
    topic
    subscribed "$SCRATCH/one" -t "\$share/crew/$t" -q 1 -C 10 -F '%p' || return 1
    local one=$listener
    subscribed "$SCRATCH/two" -t "\$share/crew/$t" -q 1 -C 10 -F '%p' || return 1
    seq 20 | pub -t "$t" -l -q 1 || return 1
    heard "$SCRATCH/two"
    local second=$got
    listener=$one
    heard "$SCRATCH/one"
    same "$(printf '%s\n%s\n' "$got" "$second" | sort -n | tr '\n' ' ')" "$(seq 20 | tr '\n' ' ')"
}

lines() {
    topic
    subscribed "$SCRATCH/lines" -t "$t" -q 1 -C 500 -F '%p' || return 1
    seq 500 | pub -t "$t" -l -q 1 || return 1
    heard "$SCRATCH/lines"
    same "$(md5sum <<< "$got")" "$(seq 500 | md5sum)"
}

big_file() {
    topic
    head -c 5000000 /dev/urandom > "$SCRATCH/big"
    pub -t "$t" -f "$SCRATCH/big" -q 2 -r || return 1
    sub -t "$t" -q 2 -C 1 -N > "$SCRATCH/back" || return 1
    cmp "$SCRATCH/big" "$SCRATCH/back" || return 1
    pub -t "$t" -n -r -q 1
}

utf_8() {
    topic
    pub -t "$t/Küche/温度" -m "21 °C" -q 1 -r || return 1
    same "$(sub -t "$t/#" -C 1 -F '%t %p')" "$t/Küche/温度 21 °C" || return 1
    pub -t "$t/Küche/温度" -n -r -q 1
}

passwords() {
    topic
    pub -t "$t" -m x -q 1 -u guest -P guest || return 1
    local message
    message=$(pub -t "$t" -m x -q 1 -u guest -P wrong 2>&1) && { echo "a wrong password was let in" >&2; return 1; }
    [[ $message == *"not authorised"* || $message == *"Not authorized"* || $message == *"ad "[Uu]"ser"* ]] || { echo "got '$message'" >&2; return 1; }
}

sys_tree() {
    has "$(sub -t '$SYS/broker/version' -t '$SYS/broker/uptime' -C 2 -F '%t' | tr '\n' ' ')" '$SYS/broker/version'
}

keep_alive() {
    topic
    subscribed "$SCRATCH/alive" -t "$t" -k 5 -C 1 -F '%p' || return 1
    sleep 8
    pub -t "$t" -m alive -q 1 || return 1
    heard "$SCRATCH/alive"
    same "$got" alive
}

unsubscribed() {
    topic
    same "$(sub -t "$t/a" -t "$t/b" -U "$t/a" -E 2>&1)" ""
}

properties() {
    topic
    subscribed "$SCRATCH/properties" -t "$t" -q 1 -C 1 -F '%p|%C|%R|%D|%F|%P|%E' -D subscribe subscription-identifier 9 || return 1
    pub -t "$t" -m text -q 1 -D publish content-type text/plain -D publish response-topic re/ply -D publish correlation-data 77 \
        -D publish payload-format-indicator 1 -D publish message-expiry-interval 100 -D publish user-property b 1 \
        -D publish user-property a 2 || return 1
    heard "$SCRATCH/properties"
    has "$got" "text|text/plain|re/ply|77|1|b:1 a:2|" 
}

no_retained_and_retain_as_published() {
    topic
    pub -t "$t" -m kept -r -q 1 || return 1
    same "$(timeout 20 mosquitto_sub "${at[@]}" -V "$version" -t "$t" -R -W 1 -F '%p')" "" || return 1
    subscribed "$SCRATCH/published" -t "$t" -q 1 --retain-as-published -C 2 -F '%p %r' || return 1
    pub -t "$t" -m live -r -q 1 || return 1
    heard "$SCRATCH/published"
    same "$(tr '\n' , <<< "$got")" "kept 1,live 1," || return 1
    pub -t "$t" -n -r -q 1
}

request_and_response() {
    topic
    subscribed "$SCRATCH/request" -t "$t" -C 1 -F '%R' || return 1
    (
        for _ in $(seq 400); do
            answer=$(grep "^$t" "$SCRATCH/request") && break
            sleep 0.05
        done
        timeout 20 mosquitto_pub "${at[@]}" -V "$version" -t "$answer" -m "twenty-one" -q 1
    ) > "$SCRATCH/answer" 2>&1 &
    same "$(timeout 30 mosquitto_rr "${at[@]}" -V "$version" -t "$t" -e "$t/reply" -m "how warm?" -q 1)" "twenty-one"
}

for version in mqttv31 mqttv311 mqttv5; do
    check "each QoS in, each QoS out [$version]" each_qos
    check "retained set, replayed and cleared [$version]" retained
    check "mosquitto_sub --remove-retained [$version]" cleared_by_remove_retained
    check "a will after kill -9 [$version]" will
    check "five hundred lines [$version]" lines
    check "five megabytes [$version]" big_file
    check "topics in UTF-8 [$version]" utf_8
    check "passwords [$version]" passwords
    check "\$SYS [$version]" sys_tree
    check "keep alive [$version]" keep_alive
    check "subscribing and unsubscribing [$version]" unsubscribed
    [ $version = mqttv31 ] || check "shared subscriptions [$version]" shared
    check "a session keeps what comes [$version]" session
done
version=mqttv5
check "properties [mqttv5]" properties
check "without retained, and retain as published [mqttv5]" no_retained_and_retain_as_published
check "mosquitto_rr asks and is answered [mqttv5]" request_and_response
exit $failed
