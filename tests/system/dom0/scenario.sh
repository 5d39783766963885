# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What is done in dom0, from starting the xenstored to stopping it. Results are CHECK lines; the
# driver on the outside knows which must come. Given as SYSTEM_daemon, SYSTEM_start (debian,
# launch), SYSTEM_size (quick, full), SYSTEM_story (lives, deaths, switches) and SYSTEM_packaged (1:
# the daemon is the package's, 0).

GUEST_COMMAND_LINE="console=hvc0 nokaslr mitigations=off loglevel=4 panic=1 random.trust_cpu=on"
. ./lib.sh
. ./start.sh
. ./life.sh
. ./deaths.sh
. ./switches.sh

SERVES=$SYSTEM_daemon # at the moment

prepare() {
    modprobe -a xen-gntalloc xen-privcmd xen-blkback xen-netback loop bridge
    ip link set lo up
    brctl addbr $BRIDGE
    ip addr add $DOM0_ADDRESS/24 dev $BRIDGE
    ip link set $BRIDGE up
}

# suites [-LABEL]: all requests over the socket, and over dom0's own ring.
suites() {
    xsprobe -d $SOCKET suite "socket$1" data/probe
    xsprobe -d /dev/xen/xenbus suite "ring$1" data/probe
    xenstore-rm /local/domain/0/data
}

# The daemon itself, before any guest.
dom0_checks() {
    check dom0.domid node_is /local/domain/0/domid 0
    check dom0.name node_is /local/domain/0/name Domain-0
    suites
    if [ "$SYSTEM_daemon" = pyxsd ]; then
        check start.second-refused fails timeout 20 "${PROGRAMS[pyxsd]}" --no-fork --pid-file /tmp/2
        check start.still-answers answers
    fi
}


stop() {
    local pid
    pid=$(pid)
    kill -TERM "$pid"
    until_true 20 fails kill -0 "$pid" || { echo "pid $pid still runs"; return 1; }
    [ ! -e "$PID_FILE" ] || { echo "$PID_FILE is still there"; return 1; }
}

say "boot done, $SYSTEM_story of $SYSTEM_daemon, start $SYSTEM_start, size $SYSTEM_size"
echo "xenstored-log-level = debug" >>/etc/xen/oxenstored.conf
[ "$SYSTEM_story" != deaths ] || echo "crash-recovery = true" >>/etc/xen/oxenstored.conf
"start_$SYSTEM_start"
say "started"
answers || exit 1
prepare
dom0_checks
say "dom0 checked"
# The first update of a process leaves it with other descriptors than a start; what is compared in
# the end is one update with the next.
[ "$SYSTEM_daemon" != pyxsd ] ||
    check dom0.update timeout $XL_PATIENCE xenstore-control live-update "${PROGRAMS[pyxsd]}"
node_list >/tmp/nodes.before
watch_list >/tmp/watches.before
DESCRIPTORS=$(descriptors)
CHANNELS=$(channels)
"$SYSTEM_story"
node_list >/tmp/nodes.after
watch_list >/tmp/watches.after
check leftovers.nodes diff /tmp/nodes.before /tmp/nodes.after
check leftovers.watches diff /tmp/watches.before /tmp/watches.after
check leftovers.descriptors until_true 20 count_is descriptors "$DESCRIPTORS"
check leftovers.event-channels until_true 20 count_is channels "$CHANNELS"
check leftovers.domains until_true 20 count_is domains 1
check end.alive alive
check end.answers answers
[ "$SERVES" = cxenstored ] || check end.stops stop
say "done"
