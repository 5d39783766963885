# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The two ways in which hosts start their xenstored. Sourced by scenario.sh; each leaves the daemon,
# dom0's nodes and xenconsoled running, and PID_FILE set.

declare -A PROGRAMS=(
    [oxenstored]=/usr/lib/xen-4.17/bin/oxenstored
    [cxenstored]=/usr/lib/xen-4.17/bin/xenstored
    [pyxsd]=/usr/sbin/pyxsd
)

answers() { xenstore-read -s / >/dev/null; }
pid() { cat "$PID_FILE"; }
alive() { kill -0 "$(pid)"; }
oom_score() { cat "/proc/$(pid)/oom_score_adj"; }

# Debian's init script; it mounts xenfs, loads modules, and starts all by itself.
start_debian() {
    PID_FILE=/run/xenstore.pid
    cat >/etc/default/xen <<END
XENSTORED=${PROGRAMS[$SYSTEM_daemon]}
XENSTORED_ARGS=
XENCONSOLED_ARGS=--log=guest
END
    check start.script /etc/init.d/xen start
    check start.answers answers
    check start.alive alive
    check start.oom-score same "$(oom_score)" -1000
    # The script knows Xen's own daemons when they run already, and starts any other again: that
    # one must refuse.
    if [ "$SYSTEM_daemon" = pyxsd ]; then
        check start.again-refused fails /etc/init.d/xen start
    else
        check start.again /etc/init.d/xen start
    fi
}

# Upstream's launch-xenstore, as its systemd unit runs it. Without a systemd-notify it waits for
# the pid file; with one (only pyxsd tells READY=1) it goes on as soon as the daemon forked.
start_launch() {
    PID_FILE=/run/xen/xenstored.pid
    modprobe xen-evtchn
    modprobe xen-gntdev
    modprobe xenfs
    mount -t xenfs xenfs /proc/xen
    mkdir -p /run/xen /run/xenstored
    echo "XENSTORED=${PROGRAMS[$SYSTEM_daemon]}" >/etc/default/xencommons
    if [ "$SYSTEM_daemon" = pyxsd ]; then
        printf '#!/bin/sh\n[ "$1" = --booted ]\n' >/usr/bin/systemd-notify
        chmod 755 /usr/bin/systemd-notify
        notifyd /run/notify /tmp/notify.log &
        until_true 10 test -S /run/notify
    fi
    check start.script env NOTIFY_SOCKET=/run/notify /etc/xen/scripts/launch-xenstore
    if [ "$SYSTEM_daemon" = pyxsd ]; then
        check start.ready contains /tmp/notify.log READY=1
    fi
    check start.answers answers
    check start.alive alive
    check start.oom-score same "$(oom_score)" -500
    /usr/lib/xen-4.17/bin/xen-init-dom0
    /usr/lib/xen-4.17/bin/xenconsoled --log=guest --pid-file=/run/xenconsoled.pid
}
