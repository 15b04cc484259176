#!/bin/sh
# Makes the Secrets of the evaluation's stores, with random passwords that the stores and LoggerHub both
# read. Again: nothing changes, because the stores keep the passwords that they began with.
#
#   manifests/evaluation/secrets.sh [NAMESPACE]
set -eu
namespace=${1:-loggerhub}

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# The values go through standard input: an argument could be read by anyone who lists processes.
secret() { # NAME, KEY: VALUE lines on standard input
    if kubectl -n "$namespace" get secret "$1" >/dev/null 2>&1; then
        echo "secret/$1 is there"
        return
    fi
    {
        printf 'apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\nstringData:\n' "$1"
        sed 's/^/  /'
    } | kubectl -n "$namespace" create -f -
}

printf 'username: loggerhub\npassword: "%s"\n' "$(random)" | secret loggerhub-postgres
printf 'password: "%s"\n' "$(random)" | secret loggerhub-redis-queue
printf 'password: "%s"\n' "$(random)" | secret loggerhub-redis-cache
printf 'accessKeyId: loggerhub\nsecretAccessKey: "%s"\n' "$(random)" | secret loggerhub-s3
