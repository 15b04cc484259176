# Loads the library and the instance that LOGGERHUB_INSTANCE names. Every command begins with it.
# shellcheck shell=bash
set -euo pipefail

LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DEV=$(dirname "$LIB")
ROOT=$(dirname "$DEV")

# Settings that the environment does not name may stand in .env.
if [ -e "$ROOT/.env" ]; then
    while IFS='=' read -r key value; do
        [[ ! $key =~ ^[A-Z][A-Z0-9_]*$ ]] || [ -n "${!key+set}" ] || export "$key=$value"
    done <"$ROOT/.env"
fi

CACHE=${LOGGERHUB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/loggerhub}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}

for part in say steps instance net process packages preflight go java python rust \
    stores stores/postgres stores/redis stores/minio stores/opensearch stores/tls \
    cluster kind cluster/pki cluster/cgroups cluster/control-plane cluster/node cluster/dns cluster/policies \
    images install doors sender tour; do
    # shellcheck source=/dev/null
    [ ! -e "$LIB/$part.sh" ] || . "$LIB/$part.sh"
done

instance_load "${LOGGERHUB_INSTANCE:-dev}"
if on_kind; then KUBECONFIG=$(kind_kubeconfig) && export KUBECONFIG; fi
