#!/usr/bin/env bash
# Boots machines: systemd as PID 1 in namespaces, over an overlay of a root file system; what they change stays in memory.
#
#   unshare --mount --propagation private boot.sh ROOT CLONE
#
# Reads commands, one a line, and answers each with a line:
#
#   boot NAME [BASE]   boot a machine; it sees what it changed before, on top of what BASE changed, on top of ROOT.
#                      The answer is the pid of its PID 1.
#   cut NAME           cut its power; what it has written stays.
#
# When the input ends, so do the machines, and nothing of them is left. In a machine, CLONE is at /usr/src/blocksd.
set -euo pipefail
root=$1 clone=$2
declare -A runners machines

home=$(mktemp --directory --tmpdir blocksd-room-XXXXXX)
cd "$home"
mount -t tmpfs -o mode=755 none .
cd "$home"
mkdir groups
# Wherever this system has its cgroups, the hierarchy is the same.
mount -t cgroup2 none groups
group=groups/${home##*/}
mkdir "$group"

boot() {
  local name=$1 below=$root become runner
  if [ -n "$2" ]; then below=$home/$2/upper:$root; fi
  mkdir -p "$name"/{upper,work,root} "$group/$name"
  mount -t overlay -o "lowerdir=$below,upperdir=$name/upper,workdir=$name/work" none "$name/root"
  become=$(declare -f become_machine)
  (
    echo "$BASHPID" >"$group/$name/cgroup.procs"
    exec setpriv --pdeathsig KILL unshare --kill-child --mount --pid --fork --uts --ipc --net --cgroup \
      bash -c "$become; become_machine \"\$@\"" sh "$name/root" "$clone"
  ) </dev/null >&2 &
  runner=$!
  runners[$name]=$runner
  # What `unshare` runs is PID 1 of its own namespace.
  until machines[$name]=$(cat "/proc/$runner/task/$runner/children") && [ -n "${machines[$name]}" ]; do
    kill -0 "$runner" # unless it has failed
    sleep 0.005
  done
  echo "${machines[$name]}"
}

become_machine() {
  set -e
  cd "$1"
  mkdir -p usr/src/blocksd
  mount --bind "$2" usr/src/blocksd
  mount -o remount,bind,ro usr/src/blocksd
  mount -t proc proc proc
  mount -t sysfs -o ro sysfs sys
  mountpoint -q sys/fs/cgroup || mount -t tmpfs none sys/fs/cgroup 2>/dev/null || true
  mount -t cgroup2 none sys/fs/cgroup
  mount -t tmpfs -o mode=755 none dev
  for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
  done
  mkdir dev/pts dev/shm
  mount -t devpts -o newinstance,ptmxmode=0666 none dev/pts
  ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd
  mount -t tmpfs -o mode=755 none run
  mount -t tmpfs -o mode=1777 none tmp
  # What the machine below has enabled is not ours to start.
  if [ ! -e etc/blocksd-test ]; then
    rm -rf etc/systemd/system/*.wants etc/fstab
    touch etc/blocksd-test
  fi
  hostname machine
  # Not chroot: who is in one may not make user namespaces, as PrivateUsers= does.
  mkdir run/below
  pivot_root . run/below
  umount --lazy /run/below
  rmdir /run/below
  # As systemd expects it of a container: what it mounts for a service, such as credentials, has to reach the service.
  mount --make-rshared /
  exec env -i container=test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=multi-user.target
}

cut() {
  local name=$1
  if [ -z "${runners[$name]:-}" ]; then return; fi
  # shellcheck disable=SC2086  # a space behind the number
  kill -KILL ${machines[$name]} 2>/dev/null || true # and with it all that runs there
  wait "${runners[$name]}" 2>/dev/null || true
  unset "runners[$name]" "machines[$name]"
  until umount "$name/root" 2>/dev/null; do sleep 0.005; done
  until find "$group/$name" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.005; done
}

end() {
  local name
  for name in "${!runners[@]}"; do cut "$name"; done
  rmdir "$group"
  cd /
  umount --recursive "$home"
  rmdir "$home"
}
trap end EXIT

while read -r command name base; do
  case $command in
    boot) boot "$name" "${base:-}" ;;
    cut)
      cut "$name"
      echo
      ;;
  esac
done
