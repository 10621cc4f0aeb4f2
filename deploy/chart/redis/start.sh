#!/bin/sh
# Start one container of one of three hosts; each host has a Redis and a Sentinel: start.sh redis|sentinel
#
# HOST is this host. HOSTS are all three; the first is the initial primary. DATA is a persistent folder. PASSWORD is used
# by both servers. BIND and DOWN_AFTER_MS have defaults. Sentinel elects the primary, and the two configuration files store
# its choice; everything else in them is written again at each start, so that changed options take effect.
set -eu
umask 077
ROLE=$1
FIRST=${HOSTS%% *}
export REDISCLI_AUTH="$PASSWORD"

call() {  # HOST PORT WORD...: print the reply, nothing without a reply within 2 s
    at=$1 port=$2
    shift 2
    timeout 2 redis-cli -h "$at" -p "$port" --raw "$@" 2>/dev/null || true
}

leader() {  # print the primary of the other Sentinels, nothing if they have none
    for host in $HOSTS; do
        [ "$host" = "$HOST" ] || call "$host" 26379 sentinel get-master-addr-by-name mesh | head -n 1
    done | grep -v -e '^$' -e ' ' | head -n 1
}

others_hold_data() {
    for host in $HOSTS; do
        [ "$host" != "$HOST" ] || continue
        case $(call "$host" 6379 dbsize) in
            '' | 0) ;;
            *) return 0 ;;  # a count, or the error of a server that is loading its data
        esac
    done
    return 1
}

mkdir -p "$DATA/$ROLE"
cd "$DATA/$ROLE"

if [ "$ROLE" = redis ]; then
    if [ -f redis.conf ]; then
        follows=$(grep '^replicaof ' redis.conf || true)
    else
        # The volume is new. An empty server must not be the primary while others have data: they would replicate the
        # empty data. It waits until the Sentinels have elected another primary.
        while at=$(leader) && at=${at:-$FIRST} && [ "$at" = "$HOST" ] && others_hold_data; do
            echo "waiting until the Sentinels elect a host with data"
            sleep 1
        done
        follows=$([ "$at" = "$HOST" ] || echo "replicaof $at 6379")
    fi
    cat >redis.conf.new <<END
$follows
dir $PWD
bind ${BIND:-*}
protected-mode no
requirepass $PASSWORD
masterauth $PASSWORD
replica-announce-ip $HOST
repl-diskless-sync-delay 0
appendonly yes
appendfsync always
save ""
maxmemory-policy noeviction
notify-keyspace-events Kt
END
    mv redis.conf.new redis.conf
    exec redis-server "$PWD/redis.conf"
fi

if [ ! -f sentinel.conf ]; then
    # A Sentinel cannot start with a host name that does not resolve, or with a primary that never ran.
    until at=$(leader) && at=${at:-$FIRST} && [ "$(call "$at" 6379 ping)" = PONG ]; do
        sleep 1
    done
    echo "sentinel monitor mesh $at 6379 2" >sentinel.conf
fi
# resolve-hostnames must precede the first host name.
{
    cat <<END
dir $PWD
bind ${BIND:-*}
port 26379
protected-mode no
requirepass $PASSWORD
sentinel sentinel-pass $PASSWORD
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $HOST
END
    grep -v -E '^(dir|bind|port|protected-mode|requirepass|user|(sentinel (sentinel-pass|resolve-hostnames|announce-hostnames|announce-ip|auth-pass|down-after-milliseconds|failover-timeout|parallel-syncs)))( |$)' sentinel.conf
    cat <<END
sentinel auth-pass mesh $PASSWORD
sentinel down-after-milliseconds mesh ${DOWN_AFTER_MS:-5000}
sentinel failover-timeout mesh 10000
sentinel parallel-syncs mesh 1
END
} >sentinel.conf.new
mv sentinel.conf.new sentinel.conf
exec redis-server "$PWD/sentinel.conf" --sentinel
