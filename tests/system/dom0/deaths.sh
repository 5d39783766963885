# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The story of a daemon with crash recovery that is killed again and again, at moments that have
# nothing to do with what it does, while guests live their lives. Sourced by scenario.sh.

LOG=/var/log/xen/xenstored.log
KILLS=0 # so far, of the keeper that there is now

# How many deaths the log tells, of all keepers.
deaths_told() { grep -c "crash recovery: the daemon was killed by SIGKILL" $LOG; }
told_deaths() { [ "$(deaths_told)" -ge "$1" ]; }

# child_of KEEPER OTHER: sets CHILD, where that is there and is not the other one.
child_of() {
    read -r CHILD _ <"/proc/$1/task/$1/children" # which has no end of line
    [ -n "$CHILD" ] && [ "$CHILD" != "$2" ]
}

# killing FILE LEAST HOW: kills the keeper's child, waits until the log tells that another one went on,
# and begins anew after up to a third of a second: LEAST times, and on until FILE.stop is there. FILE
# has the number. HOW is patient, or hasty: then each second one is killed while it comes back.
killing() {
    local keeper told count=0
    keeper=$(pid)
    CHILD=0
    while [ $count -lt "$2" ] || [ ! -e "$1.stop" ]; do
        told=$(deaths_told)
        until_true 60 child_of "$keeper" "$CHILD" && kill -KILL "$CHILD" || break
        count=$((count + 1))
        echo $count >"$1"
        [ "$3$((count % 2))" = hasty1 ] || until_true 60 told_deaths $((told + 1)) || break
        sleep "0.$(printf %03d $((RANDOM % 300)))"
    done
}

# begin_killing LEAST HOW, end_killing LABEL LEAST HOW: in the background, and what came of it.
begin_killing() {
    rm -f /tmp/kills /tmp/kills.stop
    echo 0 >/tmp/kills
    TOLD=$(deaths_told)
    killing /tmp/kills "$1" "$2" &
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
    [ "$3" = hasty ] || check "$1.logged" same "$(($(deaths_told) - TOLD))" "$count"
    check "$1.status" status_says "$KILLS deaths made up for, the last one: killed by SIGKILL"
    grep -F -e "went on after" -e "has gone on after" $LOG | tail -n $((2 * count)) |
        sed "s/^[^]]*]/DEATH $1:/"
}

# kept_anew [KEEPER]: the daemon has a keeper, another one than that, and has not died since.
kept_anew() { [ "$(pid)" != "$1" ] && status_says "crash recovery:   by process $(pid), 0 deaths"; }

# The keeper itself is killed: the daemon goes on, and gets another one by a live update.
keeper_killed() {
    local keeper score
    keeper=$(pid)
    score=$(oom_score)
    check keeper.killed kill -KILL "$keeper"
    # An attempt that takes more than 15 seconds, as it may on a busy machine, has failed; the fifth
    # comes a minute behind the fourth.
    check keeper.another until_true 240 kept_anew "$keeper" || exit 1
    check keeper.told grep -q "crash recovery: process $(pid) is the keeper after" $LOG
    check keeper.oom-score same "$(oom_score)" "$score"
    rings g1-rekept g1
}

deaths() {
    check deaths.configured kept_anew
    guest_make g1 1
    guest_make g2 2
    guest_make g3 3 pvh
    begin_killing 20 patient
    born g1-create g1 timeout $XL_PATIENCE xl create /images/g1.cfg
    end_killing boot-kills 20 patient
    rings g1-first g1
    check g1-disk.written disk_written g1
    check g1-net.ping ping -c 1 -W 10 10.9.0.11
    [ "$SYSTEM_size" != full ] || lives_among_deaths
    suites -after
    born g3-create g3 timeout $XL_PATIENCE xl create /images/g3.cfg
    updated
    KILLS=0 # the keeper is another one
    check g1-update.kept kept_anew
    keeper_killed
    begin_killing 3 patient
    rings g3-updated g3
    end_killing updated-kills 3 patient
    destroyed g3-destroy g3
    shut_down g1-shutdown g1
}

# One guest is saved and restored, another one destroyed.
lives_among_deaths() {
    born g2-create g2 timeout $XL_PATIENCE xl create /images/g2.cfg
    begin_killing 20 hasty
    saved_and_restored
    destroyed g2-destroy g2
    end_killing life-kills 20 hasty
}
