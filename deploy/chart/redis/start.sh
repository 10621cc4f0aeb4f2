#!/bin/sh
# Starts one of three hosts, each a Redis and a Sentinel: start.sh redis|sentinel
#
# HOST is this one and HOSTS are all three, the first of which leads when nobody else does; DATA is kept over restarts.
# PASSWORD is for both. BIND and DOWN_AFTER_MS have defaults. Who leads is Sentinel's to say, and what it said is kept in the two
# configuration files; all else in them is written anew at each start, so that changes of it take effect.
set -eu
umask 077
ROLE=$1
FIRST=${HOSTS%% *}
export REDISCLI_AUTH="$PASSWORD"

ask() {  # HOST PORT WORD...: the answer, nothing where nobody answers within 2 s
    at=$1 port=$2
    shift 2
    timeout 2 redis-cli -h "$at" -p "$port" --raw "$@" 2>/dev/null || true
}

leader() {  # whom the Sentinels follow, nothing where none knows
    for host in $HOSTS; do
        [ "$host" = "$HOST" ] || ask "$host" 26379 sentinel get-master-addr-by-name mesh | head -n 1
    done | grep -v -e '^$' -e ' ' | head -n 1
}

others_hold_data() {
    for host in $HOSTS; do
        [ "$host" != "$HOST" ] || continue
        case $(ask "$host" 6379 dbsize) in
            '' | 0) ;;
            *) return 0 ;;  # one that still loads its file says so, and has data
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
        # Its volume is new. While others have data, an empty server must not lead: they would take over its emptiness.
        # The Sentinels miss it for a while, and then follow another.
        while at=$(leader) && at=${at:-$FIRST} && [ "$at" = "$HOST" ] && others_hold_data; do
            echo "waiting for the Sentinels to follow a host that has data"
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
    # A Sentinel cannot begin with a name that is unknown, or a leader that never was.
    until at=$(leader) && at=${at:-$FIRST} && [ "$(ask "$at" 6379 ping)" = PONG ]; do
        sleep 1
    done
    echo "sentinel monitor mesh $at 6379 2" >sentinel.conf
fi
# The names must be told apart from addresses before the first of them is read.
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
