# The two images: docker build --target loggerhub . and --target loggerhub-operator .

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY api api
COPY cli cli
COPY crds crds
COPY dataplane dataplane
COPY fuzz fuzz
COPY operator operator
COPY query query
COPY runtime runtime
COPY stages stages
COPY testkit testkit
# A backtrace keeps its functions' names without what is stripped, five sixths of a program: lines of files.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release -p loggerhub-dataplane -p loggerhub-operator && \
    strip --strip-debug -o /usr/local/bin/loggerhub target/release/loggerhub && \
    strip --strip-debug -o /usr/local/bin/loggerhub-operator target/release/loggerhub-operator

# What the programs need beside themselves: glibc with its name resolution, and CA certificates.
FROM debian:12-slim AS base
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
USER 65532:65532

FROM base AS loggerhub-operator
COPY --from=build /usr/local/bin/loggerhub-operator /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/loggerhub-operator"]

FROM base AS loggerhub
COPY --from=build /usr/local/bin/loggerhub /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/loggerhub"]
