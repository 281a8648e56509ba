#!/bin/sh
# The chassis behind one ipmi_sim. ipmi_sim calls it as
#   chassis.sh DIR get power boot ...     and reads "power:0", "boot:default", ...
#   chassis.sh DIR set power 0|1 | reset 1 | shutdown 1 | boot WHAT | identify N F
# DIR/power and DIR/boot hold the state; every "set" becomes a line
# "SECONDS.NANOSECONDS WHAT VALUE" in DIR/log before anything else happens.
# A file named for a fault turns it on:
#   delay (s each call takes)  late (s until a new power state shows)
#   fail (each call fails)  stuck (sets change nothing)  deaf (shutdown changes nothing)
dir=$1 op=$2
shift 2
if [ "$op" = set ]; then
  log=$(date +%s.%N)
  while [ $# -gt 1 ]; do
    echo "$log $1 $2" >>"$dir/log"
    todo="$todo $1=$2"
    shift 2
  done
fi
[ -f "$dir/delay" ] && sleep "$(cat "$dir/delay")"
[ -f "$dir/fail" ] && exit 1
write() { echo "$2" >"$dir/.$1.$$" && mv "$dir/.$1.$$" "$dir/$1"; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }
power() {
  [ -f "$dir/late" ] || { rm -f "$dir/coming"; write power "$1"; return; }
  ms=$(awk '{ printf "%d", $1 * 1000 }' "$dir/late")
  write coming "$(($(now_ms) + ms)) $1"
}
case $op in
get)
  if [ -f "$dir/coming" ]; then
    read -r due v <"$dir/coming"
    [ "$(now_ms)" -ge "$due" ] && write power "$v" && rm -f "$dir/coming"
  fi
  for what in "$@"; do
    v=0
    [ "$what" = boot ] && v=default
    [ -f "$dir/$what" ] && read -r v <"$dir/$what"
    echo "$what:$v"
  done
  ;;
set)
  [ -f "$dir/stuck" ] && exit 0
  for set in $todo; do
    case $set in
    power=*) power "${set#power=}" ;;
    boot=*) write boot "${set#boot=}" ;;
    shutdown=*) [ -f "$dir/deaf" ] || power 0 ;;
    esac
  done
  ;;
*) exit 1 ;;
esac
exit 0
