# SPDX-License-Identifier: Apache-2.0
# Runs in the guest of `make vm`: three hosts as network namespaces, joined by
# veth to this one, where sluice balances. Then a shell.
set -e
command -v ip >/dev/null || { echo "vm: the guest has no ip: install iproute2 on the host" >&2; exit 1; }
command -v busybox >/dev/null || { echo "vm: the guest has no busybox: install busybox-static on the host" >&2; exit 1; }

host() { # host NAME N: namespace sl-NAME with 198.18.N.2, reached through 198.18.N.1 here
	ip netns add "sl-$1"
	ip link add "sl-$1" type veth peer name eth0 netns "sl-$1"
	ip addr add "198.18.$2.1/24" dev "sl-$1"
	ip link set "sl-$1" up
	ip -n "sl-$1" addr add "198.18.$2.2/24" dev eth0
	ip -n "sl-$1" link set lo up
	ip -n "sl-$1" link set eth0 up
	ip -n "sl-$1" route add default via "198.18.$2.1"
}
backend() { # backend NAME N: a web server that says its name
	host "$1" "$2"
	mkdir -p "/srv/$1"
	echo "this is $1" >"/srv/$1/index.html"
	ip netns exec "sl-$1" busybox httpd -p 19537 -h "/srv/$1"
}
host client 0
backend backend1 1
backend backend2 2

mkdir -p /etc/sluice /var/log/sluice
cat >/etc/sluice/backends.yaml <<'EOF'
access_log: {path: /var/log/sluice/access.log}
pools:
  web:
    backends:
      - 198.18.1.2:19537
      - 198.18.2.2:19537
listeners:
  - name: front
    listen: ":19585"
    pool: web
EOF
sluice run >/var/log/sluice/sluice.log 2>&1 &

cat >/run/shellrc <<'EOF'
PS1='vm# '
client() { for _ in $(seq "${1:-4}"); do ip netns exec sl-client busybox wget -qO- http://198.18.0.1:19585/; done; }
echo "Linux $(uname -r). sluice serves :19585 for two backends; its log is /var/log/sluice/sluice.log."
echo "  client 6                         six requests from another host"
echo "  cat /var/log/sluice/access.log   what was logged"
echo "  sluice status, sluice doctor, sluice selftest"
echo "  vi /etc/sluice/backends.yaml     an edit is live when it is saved"
echo "  exit                             ends the machine (so does Ctrl-A x)"
EOF
cd
bash --rcfile /run/shellrc -i
