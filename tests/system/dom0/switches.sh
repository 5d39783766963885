# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The story of a host whose xenstored becomes pyxsd, and is itself again, while a guest runs. Sourced
# by scenario.sh.

# switched LABEL NAME KIND COMMAND: the daemon becomes another one in its own process.
switched() {
    local process score
    process=$(pid)
    score=$(oom_score)
    check "$1.command" timeout 150 pyxsd-setup "$1" --yes
    SERVES=$2
    check "$1.serves" status_says "running now:      $3"
    check "$1.same-process" same "$(pid)" "$process"
    check "$1.oom-score" same "$(oom_score)" "$score"
    say "$1: $3 serves"
}

switches() {
    local kind="C xenstored"
    [ "$SYSTEM_daemon" = cxenstored ] || kind=$SYSTEM_daemon
    guest_make g1 1
    guest_make g2 2
    guest_make g3 3
    born g1-create g1 timeout $XL_PATIENCE xl create /images/g1.cfg
    rings g1-first g1
    switched take-over pyxsd pyxsd
    suites -taken
    rings g1-taken g1
    born g2-create g2 timeout $XL_PATIENCE xl create /images/g2.cfg
    rings g2-first g2
    destroyed g2-destroy g2
    switched give-back "$SYSTEM_daemon" "$kind"
    suites -given
    rings g1-given g1
    born g3-create g3 timeout $XL_PATIENCE xl create /images/g3.cfg
    rings g3-first g3
    destroyed g3-destroy g3
    shut_down g1-shutdown g1
}
