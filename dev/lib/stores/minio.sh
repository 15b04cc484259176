# MinIO: the object store.
# shellcheck shell=bash

S3_USER=loggerhub

minio_start() {
    mkdir -p "$DATA/minio"
    start_process minio env MINIO_ROOT_USER=$S3_USER MINIO_ROOT_PASSWORD_FILE="$SECRETS/s3" MINIO_BROWSER=off \
        MINIO_UPDATE=off "$(minio_bin)/minio" server --quiet --address :9000 "$DATA/minio"
    await_process minio 60 minio_ready
}

minio_ready() { curl -fsS -m 2 "http://$NODE_IP:9000/minio/health/ready"; }
