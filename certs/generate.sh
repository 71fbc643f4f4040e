#!/bin/sh
# Makes a test CA, a server certificate and a client certificate. For tests and trying out, never for production:
# the CA's key lies beside what it signed.
#
#   certs/generate.sh [DIRECTORY [DAYS]]
#
# DIRECTORY defaults to certs/out and must not hold certificates yet; DAYS defaults to 30. Needs openssl 1.1.1 or newer.
set -eu
umask 077

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
out=${1:-$here/out}
days=${2:-30}
case $days in
'' | *[!0-9]*)
    echo "DAYS must be a whole number" >&2
    exit 2
    ;;
esac
mkdir -p "$out"
if [ -e "$out/ca.pem" ]; then
    echo "$out/ca.pem is there already; remove the directory to begin anew" >&2
    exit 1
fi

# name, subject, extensions: a P-256 key and a certificate signed by the CA.
issue() {
    name=$1 subject=$2 extensions=$3
    openssl ecparam -name prime256v1 -genkey -noout |
        openssl pkcs8 -topk8 -nocrypt -out "$out/$name.key"
    openssl req -new -sha256 -key "$out/$name.key" -subj "$subject" -out "$out/$name.csr"
    printf '%s\n' "$extensions" >"$out/$name.ext"
    openssl x509 -req -sha256 -in "$out/$name.csr" -CA "$out/ca.pem" -CAkey "$out/ca.key" \
        -set_serial "0x00$(openssl rand -hex 15)" -days "$days" -extfile "$out/$name.ext" -out "$out/$name.pem"
    rm "$out/$name.csr" "$out/$name.ext"
}

openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$out/ca.key"
# The default sections of a system's openssl.cnf would add extensions a second time: a config of our own.
cat >"$out/ca.cnf" <<'CONFIG'
[req]
distinguished_name = name
x509_extensions = ca
prompt = no
[name]
CN = Interlock test CA
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
CONFIG
openssl req -x509 -new -sha256 -key "$out/ca.key" -days "$days" -config "$out/ca.cnf" -out "$out/ca.pem"
rm "$out/ca.cnf"

issue server "/CN=localhost" "basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, DNS:gateway, DNS:sample-api, IP:127.0.0.1, IP:::1"

issue client "/CN=agent-7" "basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = URI:spiffe://interlock.example/agent-7"

chmod 644 "$out/ca.pem" "$out/server.pem" "$out/client.pem"
chmod 600 "$out/ca.key" "$out/server.key" "$out/client.key"
echo "wrote $out: ca, server and client, valid for $days days"
