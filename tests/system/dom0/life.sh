# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The lives of guests, from creation to what they leave behind. Sourced by scenario.sh.

# Seconds: a toolstack that hangs shall fail its check, not the whole run.
XL_PATIENCE=60

# born LABEL NAME COMMAND...: runs the command that makes the guest, and looks at its devices.
born() {
    local label=$1 name=$2 id
    shift 2
    watch_for "$label-introduce" @introduceDomain
    check "$label.command" "$@"
    check "$label.introduced" watched "$label-introduce" @introduceDomain
    arrived "$label" "$name"
}

# arrived LABEL NAME: the guest's program answers, its devices are connected.
arrived() {
    local id backend=/local/domain/0/backend
    id=$(domid_of "$2")
    say "$1: $2 is domain $id"
    # A restored guest goes on where it was: it does not report itself again.
    [ "${1%restore}" != "$1" ] || check "$1.ready" guest_ready "$id" || exit 1
    check "$1.name" node_is "/local/domain/$id/name" "$2"
    check "$1.disk-back" probe await "$backend/vbd/$id/51712/state" 4 60
    check "$1.disk-front" probe await "/local/domain/$id/device/vbd/51712/state" 4 60
    check "$1.net-back" probe await "$backend/vif/$id/0/state" 4 60
    check "$1.net-front" probe await "/local/domain/$id/device/vif/0/state" 4 60
    check "$1.hotplug" node_is "$backend/vif/$id/0/hotplug-status" connected
    check_ask "$1.echo" "$2" echo hello-$1 hello-$1
    guest_console "$2"
}

# rings LABEL NAME: what the guest sees through its own ring, and watches both ways.
rings() {
    local id
    id=$(domid_of "$2")
    check_ask "$1.suite" "$2" suite "$1" ran
    can_list_watches && check "$1.watch-listed" watch_of "$id"
    watch_for "$1-out" "/local/domain/$id/data/out"
    check_ask "$1.put" "$2" put data/out ok
    check "$1.dom0-watch" watched "$1-out" "/local/domain/$id/data/out"
    check_ask "$1.denied" "$2" put /local/domain/0/from-guest EACCES
    guest_console "$2"
}

no_interface() { fails ip link show "$1"; }
no_loop() { fails grep -qs "$1" /sys/block/loop*/loop/backing_file; }
# Older daemons say D1 for DOM1. C xenstored cannot be asked for its watches.
watch_of() { watch_list | grep -E "watch D(OM)?$1:? "; }
no_watch_of() { fails watch_of "$1"; }
can_list_watches() { [ "$SERVES" != cxenstored ]; }

# died LABEL NAME ID UUID COMMAND...: runs the command that ends domain ID, looks for what stayed.
died() {
    local label=$1 name=$2 id=$3 uuid=$4
    shift 4
    watch_for "$label-release" @releaseDomain
    check "$label.command" "$@"
    check "$label.released" watched "$label-release" @releaseDomain
    check "$label.path-gone" probe gone "/local/domain/$id" 60 || exit 1
    check "$label.vm-gone" probe gone "/vm/$uuid" 30
    check "$label.libxl-gone" probe gone "/libxl/$id" 30
    check "$label.vbd-gone" probe gone "/local/domain/0/backend/vbd/$id" 30
    check "$label.vif-gone" probe gone "/local/domain/0/backend/vif/$id" 30
    check "$label.interface-gone" until_true 30 no_interface "vif$id.0"
    check "$label.loop-gone" until_true 30 no_loop "/images/$name.img"
    can_list_watches && check "$label.watches-gone" no_watch_of "$id"
    guest_console "$name"
    say "$label: domain $id is gone"
}
uuid_of() { xenstore-read "/local/domain/$1/vm" | sed 's|.*/||'; }

disk_written() { dd if="/images/$1.img" bs=512 skip=8 count=1 2>/dev/null | grep -q "written by $1"; }

# serves_as PATTERN: a process runs that program; the pattern must not match itself.
serves_as() { [ -n "$(grep -la -- "$1" /proc/[0-9]*/cmdline 2>/dev/null)" ] || { ps; return 1; }; }

# Another copy of pyxsd takes over while the guest runs, which notices nothing.
updated() {
    local score
    score=$(oom_score)
    cp "${PROGRAMS[pyxsd]}" /tmp/pyxsd-second
    check g1-update.command timeout $XL_PATIENCE xenstore-control live-update /tmp/pyxsd-second
    check g1-update.serves serves_as 'pyxsd-secon[d]'
    check g1-update.oom-score same "$(oom_score)" "$score"
    rings g1-updated g1
}

# destroyed LABEL NAME
destroyed() {
    local id uuid
    id=$(domid_of "$2")
    uuid=$(uuid_of "$id")
    died "$1" "$2" "$id" "$uuid" timeout $XL_PATIENCE xl destroy "$2"
}

shut_down() { # LABEL NAME
    local id uuid
    id=$(domid_of "$2")
    uuid=$(uuid_of "$id")
    died "$1" "$2" "$id" "$uuid" timeout $XL_PATIENCE xl shutdown -w "$2"
}

# The story of guests and what becomes of them.
lives() {
    life_of_one
    [ "$SYSTEM_size" != full ] || life_of_two
}

# One guest: created, tried, and shut down; pyxsd is updated meanwhile. The full size also saves,
# restores and reboots the guest.
life_of_one() {
    guest_make g1 1
    born g1-create g1 timeout $XL_PATIENCE xl create /images/g1.cfg
    rings g1-first g1
    check g1-disk.written disk_written g1
    check g1-net.ping ping -c 1 -W 10 10.9.0.11
    [ "$SERVES" != pyxsd ] || updated
    if [ "$SYSTEM_size" = full ]; then
        saved_and_restored
        rebooted
    fi
    shut_down g1-shutdown g1
}

saved_and_restored() {
    local id uuid
    id=$(domid_of g1)
    uuid=$(uuid_of "$id")
    died g1-save g1 "$id" "$uuid" timeout $XL_PATIENCE xl save g1 /images/g1.save
    born g1-restore g1 timeout $XL_PATIENCE xl restore /images/g1.save
    rm -f /images/g1.save
    check g1-restore.new-domid fails same "$(domid_of g1)" "$id"
    rings g1-restored g1
}

other_domid() { # NAME OLD
    local now
    now=$(domid_of "$1") && [ "$now" != "$2" ]
}

# The toolstack's own process makes the domain anew, so its command tells nothing of the end.
rebooted() {
    local id uuid
    id=$(domid_of g1)
    uuid=$(uuid_of "$id")
    watch_for g1-reboot-release @releaseDomain
    check g1-reboot.command timeout $XL_PATIENCE xl reboot g1
    check g1-reboot.released watched g1-reboot-release @releaseDomain
    check g1-reboot.path-gone probe gone "/local/domain/$id" 60 || exit 1
    check g1-reboot.new-domid until_true 60 other_domid g1 "$id"
    check g1-reboot.vbd-gone probe gone "/local/domain/0/backend/vbd/$id" 30
    check g1-reboot.vif-gone probe gone "/local/domain/0/backend/vif/$id" 30
    can_list_watches && check g1-reboot.watches-gone no_watch_of "$id"
    arrived g1-reborn g1
    rings g1-again g1
}

# Two guests at once; one is destroyed in the middle of its work, the other must not notice.
life_of_two() {
    local first uuid
    guest_make g2 2
    guest_make g3 3 pvh
    born g2-create g2 timeout $XL_PATIENCE xl create /images/g2.cfg
    born g3-create g3 timeout $XL_PATIENCE xl create /images/g3.cfg
    rings g2-first g2
    rings g3-first g3
    first=$(domid_of g2)
    uuid=$(uuid_of "$first")
    xenstore-write "/local/domain/$first/data/command" "1000 suite g2-cut"
    check g2-destroy.busy probe await "/local/domain/$first/data/probe" "" 30
    died g2-destroy g2 "$first" "$uuid" timeout $XL_PATIENCE xl destroy g2
    check_ask g3-alone.echo g3 echo still-here still-here
    destroyed g3-destroy g3
}
