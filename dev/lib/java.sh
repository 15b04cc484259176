# OpenSearch from Maven Central, by the versions in opensearch/pom.xml.
# shellcheck shell=bash

JAVA_NEEDED=21

# The home of a JDK that OpenSearch 3 accepts.
java_home() {
    local home
    for home in "${JAVA_HOME:-}" /usr/lib/jvm/*; do
        [ -x "$home/bin/javac" ] && [ "$(java_version "$home")" -ge $JAVA_NEEDED ] && echo "$home" && return
    done
    return 1
}

java_version() { sed -nE 's/^JAVA_VERSION="([0-9]+).*/\1/p' "$1/release" 2>/dev/null || echo 0; }

opensearch_home() { echo "$CACHE/opensearch/$(cat "$DEV/opensearch/pom.xml" "$DEV"/opensearch/src/main/java/dev/*.java | sha256sum | cut -c1-16)"; }

opensearch_fetch() { with_lock opensearch opensearch_fetch_locked; }

opensearch_fetch_locked() {
    local home
    home=$(opensearch_home)
    [ ! -d "$home" ] || return 0
    rm -rf "$home.part"
    JAVA_HOME=$(java_home) mvn -B -C -ntp -f "$DEV/opensearch/pom.xml" -DbuildDirectory="$home.part" package
    mv "$home.part" "$home"
}
