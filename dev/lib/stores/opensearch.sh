# OpenSearch 3: the index. The core distribution, so without the security plugin: no credentials.
# shellcheck shell=bash

opensearch_start() {
    local home=$DATA/opensearch java heap=${LOGGERHUB_OPENSEARCH_HEAP:-512m} flags=(--add-modules=jdk.incubator.vector)
    java=$(java_home) || fail "OpenSearch needs a JDK $JAVA_NEEDED or newer: set JAVA_HOME"
    [ "$(java_version "$java")" -lt 25 ] || flags+=(-XX:+UseCompactObjectHeaders --enable-native-access=ALL-UNNAMED)
    mkdir -p "$home/config"
    cp "$DEV/opensearch/log4j2.properties" "$home/config/"
    start_process opensearch "$java/bin/java" -Xms"$heap" -Xmx"$heap" "${flags[@]}" -XX:+ExitOnOutOfMemoryError \
        -Djava.awt.headless=true -cp "$(opensearch_home)/lib/*" dev.OpenSearch \
        path.home="$home" path.data="$home/data" cluster.name="loggerhub-$INSTANCE" node.name=node1 \
        discovery.type=single-node network.host=0.0.0.0 network.publish_host="$NODE_IP" http.port=9200 \
        transport.port=9300 http.type=netty4 transport.type=netty4 \
        cluster.routing.allocation.disk.threshold_enabled=false
    await_process opensearch 90 opensearch_ready
    # There is one node, so a replica would never be placed. The server reads this only from here.
    curl -fsS -m 10 -o /dev/null -X PUT -H 'Content-Type: application/json' "http://$NODE_IP:9200/_cluster/settings" \
        -d '{"persistent": {"cluster.default_number_of_replicas": 0}}'
}

opensearch_ready() { curl -fsS -m 3 "http://$NODE_IP:9200/_cluster/health?wait_for_status=yellow&timeout=1s"; }
