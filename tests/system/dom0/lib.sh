# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the steps in dom0 are made of: checks, waits, and talk with guests. Sourced by scenario.sh.

SOCKET=/run/xenstored/socket
BRIDGE=xenbr0
DOM0_ADDRESS=10.9.0.1

say() { echo "SYSTEM $(cut -d' ' -f1 /proc/uptime) $*"; }

# check NAME COMMAND...: one result line; the detail of a failure is what the command said.
check() {
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then
        echo "CHECK $name ok"
    else
        echo "CHECK $name fail $(tail -n 5 <<<"$said" | tr '\n\r' '  ')"
        return 1
    fi
}

# until_true SECONDS COMMAND...: for what announces itself by no event.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

fails() { ! "$@"; }
same() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'"; return 1; }; }
contains() { grep -qF -- "$2" "$1" || { echo "no '$2' in: $(cat "$1")"; return 1; }; }
status_says() { pyxsd-setup status >/tmp/status; contains /tmp/status "$1"; }
node_is() { same "$(xenstore-read "$1" 2>&1)" "$2"; }
no_node() { fails xenstore-exists "$1" || { echo "$1 is still there: $(xenstore-ls "$1")"; return 1; }; }

probe() { xsprobe -d $SOCKET "$@"; }

# watch_for NAME PATH: begins to wait, in the background, for one event; the watch stands when
# this returns. `watched NAME PATH` waits until it came and compares its path.
watch_for() {
    rm -f "/tmp/$1.ready" "/tmp/$1.done"
    { probe event "$2" "$1" "/tmp/$1.ready" 120 >"/tmp/$1.event" 2>&1; : >"/tmp/$1.done"; } &
    until_true 30 test -e "/tmp/$1.ready"
}
watched() {
    until_true 130 test -e "/tmp/$1.done"
    same "$(cat "/tmp/$1.event")" "$2"
}

# Guests. Their number gives address and hardware address.
guest_make() { # NAME NUMBER [TYPE]
    dd if=/dev/zero of="/images/$1.img" bs=1024 count=64 2>/dev/null
    printf 'disk of %s\n' "$1" | dd of="/images/$1.img" conv=notrunc 2>/dev/null
    cat >"/images/$1.cfg" <<END
name = "$1"
type = "${3:-pv}"
kernel = "/boot/vmlinux"
ramdisk = "/boot/guest.cpio"
memory = 144
vcpus = 1
extra = "$GUEST_COMMAND_LINE probe=$1 address=10.9.0.1$2 dom0=$DOM0_ADDRESS"
disk = ["format=raw,vdev=xvda,access=rw,target=/images/$1.img"]
vif = ["mac=00:16:3e:00:00:0$2,bridge=$BRIDGE"]
on_poweroff = "destroy"
on_reboot = "restart"
on_crash = "destroy"
END
}

domid_of() { xl domid "$1" 2>/dev/null; }
guest_ready() { probe await "/local/domain/$1/data/answer" "0 ready" 120; }

# ask NAME VERB ARGUMENT EXPECTED: a command to the guest and its answer.
QUESTIONS=0
ask() {
    local path said
    path=/local/domain/$(domid_of "$1")/data
    said=$(xenstore-write "$path/command" "$QUESTIONS $2 $3" &&
        probe await "$path/answer" "$QUESTIONS " 120) || return
    same "$said" "$QUESTIONS $4"
}
# Counted here: `check` runs its command in a subshell.
check_ask() { QUESTIONS=$((QUESTIONS + 1)); check "$1" ask "${@:2}"; }

declare -A SHOWN # bytes of a guest's console log that were printed
guest_console() { # NAME: what is new on its console
    local log=/var/log/xen/console/guest-$1.log size
    size=$(stat -c %s "$log" 2>/dev/null) || return 0
    tail -c "+$((${SHOWN[$1]:-0} + 1))" "$log" | tr -d '\r' | sed "s/^/GUEST $1: /"
    SHOWN[$1]=$size
}

# What the daemon holds, to compare. Socket connections are numbered anew each time; the toolstack
# makes the bare /vm and /libxl once and may leave them.
watch_list() { xenstore-control watches 2>&1 | tr -d '\0' | sed 's/#[0-9]*//; s/ A[0-9]*:/ A:/' | sort; }
node_list() { xenstore-ls -f / | cut -d' ' -f1 | grep -vxE '/vm|/libxl' | sort; }
# How many files the daemon has open, how many event channels dom0 has.
descriptors() { ls "/proc/$(pid)/fd" | wc -l; }
channels() { /usr/lib/xen-4.17/bin/lsevtchn 0 | wc -l; }
# Those that Xen has: one whose page is still mapped stays as a "(null)" when it has ended.
domains() { xl list | tail -n +2 | wc -l; }
count_is() { same "$("$1")" "$2"; } # FUNCTION COUNT
