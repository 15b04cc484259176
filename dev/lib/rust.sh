# LoggerHub's own programs.
# shellcheck shell=bash

# All of the workspace at once, so that cargo chooses the same features as for its tests and builds
# each library once.
rust_build() { cd "$ROOT" && cargo build --locked --workspace --bins; }

program() { echo "$CARGO_TARGET_DIR/debug/$1"; }
