#!/usr/bin/env bash
# make.sh DIR: the certificates in this directory, of kinds that rcgen cannot make. Needs OpenSSL 3.
set -euo pipefail
out=$(realpath "${1:-.}"); work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
cat > ca.cnf <<C
[ca]
default_ca = d
[d]
new_certs_dir = .
database = index.txt
rand_serial = yes
policy = p
email_in_dn = no
unique_subject = no
[p]
commonName = supplied
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:kubernetes
C
: > index.txt
dates="-startdate 20200101000000Z -enddate 20491231235959Z"
p256="-algorithm EC -pkeyopt ec_paramgen_curve:P-256"
# kind NAME "CA'S KEY" "LEAF'S KEY" DIGEST [more for ca]
kind() {
    local name=$1 ca=$2 leaf=$3 digest=$4; shift 4
    openssl genpkey $ca -out ca.key 2>/dev/null
    openssl genpkey $leaf -out leaf.key 2>/dev/null
    openssl req -new -key ca.key -subj /CN=kubernetes -out ca.csr
    openssl req -new -key leaf.key -subj /CN=kube-apiserver -out leaf.csr
    openssl ca -batch -notext -config ca.cnf -selfsign -keyfile ca.key -in ca.csr -out ca.crt -extensions root -md $digest $dates "$@" 2>log || { cat log; exit 1; }
    openssl ca -batch -notext -config ca.cnf -keyfile ca.key -cert ca.crt -in leaf.csr -out leaf.crt -extensions leaf -md $digest $dates "$@" 2>log || { cat log; exit 1; }
    cat ca.crt leaf.crt leaf.key > "$out/$name.pem"
}
kind p256-sha512 "$p256" "$p256" sha512
kind p384-sha512 "-algorithm EC -pkeyopt ec_paramgen_curve:P-384" "$p256" sha512
kind p521-sha512 "-algorithm EC -pkeyopt ec_paramgen_curve:P-521" "-algorithm EC -pkeyopt ec_paramgen_curve:P-521" sha512
kind pss-ca "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048" "$p256" sha256
kind pss-leaf "$p256" "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048" sha256
kind ed448-ca "-algorithm ED448" "$p256" default
kind ed448-leaf "$p256" "-algorithm ED448" sha256
kind brainpool-ca "-algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP256r1" "$p256" sha256
kind rsa1024-ca "-algorithm RSA -pkeyopt rsa_keygen_bits:1024" "$p256" sha256
