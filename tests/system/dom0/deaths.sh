# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The story of a daemon with crash recovery that is killed again and again, at moments that have
# nothing to do with what it does, while guests live their lives. Sourced by scenario.sh.

LOG=/var/log/xen/xenstored.log
KILLS=0 # so far, of the keeper that there is now

# How many deaths the log tells, of all keepers.
deaths_told() { grep -c "crash recovery: the daemon was killed by SIGKILL" $LOG; }
told_deaths() { [ "$(deaths_told)" -ge "$1" ]; }

# killing FILE LEAST: kills the keeper's child, waits until the log tells that another one went on,
# and begins anew after up to a third of a second: LEAST times, and on until FILE.stop is there. FILE
# has the number.
killing() {
    local keeper told child count=0
    keeper=$(pid)
    told=$(deaths_told)
    while [ $count -lt "$2" ] || [ ! -e "$1.stop" ]; do
        read -r child _ <"/proc/$keeper/task/$keeper/children"
        kill -KILL "$child" || break
        count=$((count + 1))
        echo $count >"$1"
        until_true 60 told_deaths $((told + count)) || break
        sleep "0.$(printf %03d $((RANDOM % 300)))"
    done
}

# begin_killing LEAST, end_killing LABEL LEAST: in the background, and what came of it.
begin_killing() {
    rm -f /tmp/kills /tmp/kills.stop
    echo 0 >/tmp/kills
    TOLD=$(deaths_told)
    killing /tmp/kills "$1" &
    KILLER=$!
}
end_killing() {
    local count
    say "$1: $(cat /tmp/kills) deaths until now"
    : >/tmp/kills.stop
    wait $KILLER
    count=$(cat /tmp/kills)
    KILLS=$((KILLS + count))
    check "$1.enough" test "$count" -ge "$2"
    check "$1.logged" same "$(($(deaths_told) - TOLD))" "$count"
    check "$1.status" status_says "$KILLS deaths made up for, the last one: killed by SIGKILL"
    sed -n 's/.*\(killed by SIGKILL; .*\)/\1/p' $LOG | tail -n "$count" | sed "s/^/DEATH $1: /"
}

deaths() {
    check deaths.configured status_says "crash recovery:   by process $(pid), 0 deaths"
    guest_make g1 1
    guest_make g2 2
    guest_make g3 3
    begin_killing 20
    born g1-create g1 timeout $XL_PATIENCE xl create /images/g1.cfg
    end_killing boot-kills 20
    rings g1-first g1
    check g1-disk.written disk_written g1
    check g1-net.ping ping -c 1 -W 10 10.9.0.11
    [ "$SYSTEM_size" != full ] || lives_among_deaths
    suites -after
    born g3-create g3 timeout $XL_PATIENCE xl create /images/g3.cfg
    updated
    KILLS=0 # the keeper is another one
    check g1-update.kept status_says "crash recovery:   by process $(pid), 0 deaths"
    begin_killing 3
    rings g3-updated g3
    end_killing updated-kills 3
    destroyed g3-destroy g3
    shut_down g1-shutdown g1
}

# One guest is saved and restored, another one destroyed.
lives_among_deaths() {
    born g2-create g2 timeout $XL_PATIENCE xl create /images/g2.cfg
    begin_killing 20
    saved_and_restored
    destroyed g2-destroy g2
    end_killing life-kills 20
}
