# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The ends of dom0's logs, and what there was at the end, for whoever must find out what failed.

LOGS=/var/log/xen
for log in $LOGS/xen-hotplug.log $LOGS/xl-*.log $LOGS/xenstored.log $LOGS/xenstored-access.log; do
    [ -e "$log" ] && tail -n 60 "$log" | tr -d '\r' | sed "s|^|LOG ${log##*/}: |"
done
dmesg | tail -n 20 | sed "s|^|LOG dmesg: |"
timeout 5 xl list | sed "s|^|LOG xl list: |"
ps | grep -v '\[' | sed "s|^|LOG ps: |"
