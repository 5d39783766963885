# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The story of a host whose xenstored becomes pyxsd, and is itself again, while a guest runs. Sourced
# by scenario.sh.

# switched [PREFIX-]COMMAND: the daemon becomes another one in its own process.
switched() {
    local command kind process score
    process=$(pid)
    score=$(oom_score)
    command=take-over SERVES=pyxsd kind=pyxsd
    if [ "${1%give-back}" != "$1" ]; then
        command=give-back SERVES=$SYSTEM_daemon kind=$SYSTEM_daemon
        [ "$kind" = oxenstored ] || kind="C xenstored"
    fi
    check "$1.command" timeout 150 pyxsd-setup $command --yes
    check "$1.serves" status_says "running now:      $kind"
    check "$1.same-process" same "$(pid)" "$process"
    check "$1.oom-score" same "$(oom_score)" "$score"
    say "$1: $kind serves"
}

# The same with crash recovery: the keeper becomes the other xenstored.
switched_while_kept() {
    echo "crash-recovery = true" >>/etc/xen/oxenstored.conf
    switched kept-take-over
    check kept.configured kept_anew
    begin_killing 5 patient
    rings g1-kept g1
    rings g3-kept g3
    end_killing kept-kills 5 patient
    switched kept-give-back
    rings g1-unkept g1
    rings g3-unkept g3
}

switches() {
    guest_make g1 1
    guest_make g2 2
    guest_make g3 3 pvh
    born g1-create g1 timeout $XL_PATIENCE xl create /images/g1.cfg
    rings g1-first g1
    switched take-over
    suites -taken
    rings g1-taken g1
    born g2-create g2 timeout $XL_PATIENCE xl create /images/g2.cfg
    rings g2-first g2
    destroyed g2-destroy g2
    switched give-back
    suites -given
    rings g1-given g1
    born g3-create g3 timeout $XL_PATIENCE xl create /images/g3.cfg
    rings g3-first g3
    [ "$SYSTEM_size" != full ] || switched_while_kept
    destroyed g3-destroy g3
    shut_down g1-shutdown g1
}
