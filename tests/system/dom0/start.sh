# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The two ways in which hosts start their xenstored. Sourced by scenario.sh; each leaves the daemon,
# dom0's nodes and xenconsoled running, and PID_FILE set.

declare -A PROGRAMS=(
    [oxenstored]=/usr/lib/xen-4.17/bin/oxenstored
    [cxenstored]=/usr/lib/xen-4.17/bin/xenstored
    [pyxsd]=/usr/sbin/pyxsd
)

# What the kernel of a running dom0 has.
modules() {
    modprobe xen-evtchn
    modprobe xen-gntdev
    modprobe xen-privcmd
    modprobe xenfs
    mount -t xenfs xenfs /proc/xen
    mkdir -p /run/xen
}
choose() { # FILE: with the package, pyxsd-setup writes the program into the settings file
    check setup.check pyxsd-setup check
    check setup.select pyxsd-setup select
    check setup.status contains <(pyxsd-setup status) "(/usr/sbin/pyxsd-launch); $1, line "
}

interpreters() { # how many processes are Python; in this dom0 that is the daemon alone
    for process in /proc/[0-9]*; do readlink "$process/exe"; done | grep -c python
}

# again COMMAND...: the package's launcher succeeds beside a daemon that answers, and leaves it alone.
again() {
    local before
    before=$(pid)
    check start.again "$@"
    check start.same-daemon same "$(pid) $(interpreters)" "$before 1"
}

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
    if [ "$SYSTEM_packaged" = 1 ]; then
        sed -i 's/^XENSTORED=.*/XENSTORED=/' /etc/default/xen
        modules
        choose /etc/default/xen
    fi
    check start.script /etc/init.d/xen start
    check start.answers answers
    check start.alive alive
    check start.oom-score same "$(oom_score)" -1000
    # The script knows Xen's own daemons when they run already, and starts any other again: that
    # one must refuse, but for the launcher, which finds nothing to do.
    if [ "$SYSTEM_packaged" = 1 ]; then
        again /etc/init.d/xen start
    elif [ "$SYSTEM_daemon" = pyxsd ]; then
        check start.again-refused fails /etc/init.d/xen start
    else
        check start.again /etc/init.d/xen start
    fi
}

# Upstream's launch-xenstore, as its systemd unit runs it. Without a systemd-notify it waits for
# the pid file; with one (only pyxsd tells READY=1) it goes on as soon as the daemon forked.
start_launch() {
    PID_FILE=/run/xen/xenstored.pid
    modules
    mkdir -p /run/xenstored
    echo "XENSTORED=${PROGRAMS[$SYSTEM_daemon]}" >/etc/default/xencommons
    if [ "$SYSTEM_packaged" = 1 ]; then
        # A host with Xen's own unit, and without Debian's script.
        echo "#XENSTORED=" >/etc/default/xencommons
        mv /etc/init.d/xen /tmp
        mkdir -p /usr/lib/systemd/system
        printf '[Service]\nType=notify\nExecStart=/etc/xen/scripts/launch-xenstore\n' \
            >/usr/lib/systemd/system/xenstored.service
        ln -s "${PROGRAMS[oxenstored]}" /usr/sbin/oxenstored
        choose /etc/default/xencommons
    fi
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
    if [ "$SYSTEM_packaged" = 1 ]; then
        # Where there is a pid file, Xen's script looks no further.
        again sh -c 'rm "$0" && exec /etc/xen/scripts/launch-xenstore' "$PID_FILE"
    fi
    /usr/lib/xen-4.17/bin/xen-init-dom0
    /usr/lib/xen-4.17/bin/xenconsoled --log=guest --pid-file=/run/xenconsoled.pid
}
